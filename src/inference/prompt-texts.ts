/**
 * Default text of forward passes for checkpoints with a tokenizer. It was written for this purpose, in several languages,
 * scripts and kinds of text, so that it uses many different tokens. A trained model predicts this text far better than
 * chance; seeded ids cannot show that.
 */
export const TEXTS: readonly string[] = [
  "The river had frozen overnight, and by morning the children were already skating between the boats. " +
    "Nobody remembered who had swept the snow from the ice, but everyone agreed that it was kind of them.",
  "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n" +
    "    return total / len(values) if values else 0.0\n",
  "Am Abend kam der Zug mit einer Stunde Verspätung an, und auf dem Bahnsteig wartete nur noch der alte " +
    "Schaffner mit seiner Laterne.",
  "昨天下午下了一场大雨，街上的人都跑进商店里躲雨。雨停了以后，天空出现了一道彩虹。",
  "Вечером мы сидели у окна и слушали, как шумит старый сад. Потом бабушка принесла чай и свежий хлеб.",
  "وصل القطار متأخرا في المساء، وكان الجو باردا، فشربنا الشاي الساخن قبل أن نعود إلى البيت.",
  '{"name": "lamp", "price": 24.5, "tags": ["desk", "light"], "inStock": true}\n',
  "Le marché ouvre à sept heures : les pêcheurs vendent leurs poissons, puis tout le monde va boire un café.",
];
