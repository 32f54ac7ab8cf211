/** The only script of the page: it searches long tables. Without it the page is complete but for this search. */
export const SCRIPT = `
for (const table of document.querySelectorAll("table.long")) {
  const rows = [...table.tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const bar = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("span");
  bar.className = "find";
  input.type = "search";
  input.setAttribute("aria-label", "search this table");
  input.placeholder = "search this table";
  const show = () => {
    const words = input.value.toLowerCase().split(/\\s+/).filter((word) => word !== "");
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      if (!row.hidden) shown++;
    });
    count.textContent = shown === rows.length ? rows.length + " rows" : shown + " of " + rows.length + " rows";
  };
  input.addEventListener("input", show);
  bar.append(input, count);
  table.parentElement.before(bar);
  show();
}
`;
