/** A certificate speaks for the format and the files that it was issued for. */
import { generateKeyPairSync } from "node:crypto";
import { appendFileSync, copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { decodeCertificate, encodeCertificate, sealCertificate } from "../../src/certificate/certificate.ts";
import { findCertificate } from "../../src/certificate/location.ts";
import { storeAt } from "../../src/checkpoint/store.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import { type Attack, attacks, convert, made, verify } from "./attack.ts";
import { putAdapter, putOtherShards } from "./beside.ts";
import { type Change, copied, editJson, otherModel, put } from "./changes.ts";

/** A certified folder. @returns it */
const certified = async (at: string, name: string, flags: readonly string[] = [], change?: Change) =>
  await made(
    "convert",
    await copied("tiny", join(at, `${name}-source`), change),
    join(at, name),
    "--to",
    "hf",
    ...flags,
  );

/** PEM files of an Ed25519 pair. */
function keyPair(at: string): { readonly key: string; readonly publicKey: string } {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const files = { key: join(at, "k.pem"), publicKey: join(at, "k.pub.pem") };
  writeFileSync(files.key, privateKey.export({ type: "pkcs8", format: "pem" }));
  writeFileSync(files.publicKey, publicKey.export({ type: "spki", format: "pem" }));
  return files;
}

const rows: readonly Attack[] = [
  {
    name: "cert-of-other-format",
    what: "the signed certificate of a packed file lies in a folder with the same weights and another tokenizer, template and code",
    right: "red",
    async run(at) {
      const b = await copied("tiny", join(at, "b"));
      const { key, publicKey } = keyPair(at);
      const packed = await made("convert", b, join(at, "m.isologit"), "--sign", key);
      const { bytes } = await findCertificate(packed, await storeAt(packed));
      put(b, CERTIFICATE_FILE, bytes);
      editJson(join(b, "tokenizer.json"), ({ model: { vocab } }) => {
        const [x, y] = Object.keys(vocab).slice(100, 102) as [string, string];
        [vocab[x], vocab[y]] = [vocab[y], vocab[x]];
      });
      put(b, "chat_template.jinja", "{{ 'evil' }}");
      put(b, "modeling_nemotron_h.py", "import os\n");
      return await verify(b, "--public-key", publicKey);
    },
  },
  {
    name: "cert-new-files",
    what: "a template, a tokenizer and an adapter are added to a certified folder",
    right: "red",
    async run(at) {
      const source = await copied("tiny", join(at, "a"));
      rmSync(join(source, "chat_template.jinja"));
      const { key, publicKey } = keyPair(at);
      const folder = await made("convert", source, join(at, "c"), "--to", "hf", "--sign", key);
      put(folder, "chat_template.jinja", "{{ 'evil' }}");
      put(folder, "tokenizer.model", "\0evil");
      putAdapter(folder);
      return await verify(folder, "--public-key", publicKey);
    },
  },
  {
    name: "cert-new-index",
    what: "shards of another model with their index are added to a certified folder",
    right: "red",
    async run(at) {
      const folder = await certified(at, "c");
      await putOtherShards(folder, at);
      return await verify(folder);
    },
  },
  {
    name: "cert-of-other-model",
    what: "the certificate is another model's",
    right: "red",
    async run(at) {
      const [one, other] = [await certified(at, "one"), await certified(at, "other", [], otherModel)];
      copyFileSync(join(one, CERTIFICATE_FILE), join(other, CERTIFICATE_FILE));
      return await verify(other);
    },
  },
  {
    name: "cert-limits-edited",
    what: "a limit in the certificate is edited, its own hash is left",
    right: "red",
    async run(at) {
      const folder = await certified(at, "c");
      const path = join(folder, CERTIFICATE_FILE);
      const text = readFileSync(path, "utf8");
      expect(text).toContain('"klMean":0');
      writeFileSync(path, text.replace('"klMean":0', '"klMean":9'));
      return await verify(folder);
    },
  },
  {
    name: "cert-resealed",
    what: "a signed certificate is edited and its hash made anew, the signature is left",
    right: "red",
    async run(at) {
      const folder = await certified(at, "c", ["--sign", keyPair(at).key]);
      const path = join(folder, CERTIFICATE_FILE);
      const { sha256: _, signature, ...body } = decodeCertificate(readFileSync(path), path);
      writeFileSync(
        path,
        encodeCertificate({ ...sealCertificate({ ...body, tool: "isologit 9" }), signature: signature! }),
      );
      return await verify(folder);
    },
  },
  {
    name: "cert-absurd-limits",
    what: "the certificate was issued under limits that pass anything",
    right: "told",
    tells: /certified under limits/,
    async run(at) {
      const tolerance = join(at, "t.yaml");
      put(at, "t.yaml", "kl: 1e9\nklP99: 1e9\ntop1: 0\n");
      const flags = ["--dtype", "fp8-e5m2", "--recipe", "all-linear", "--tolerance", tolerance];
      return await verify(await made("recast", await copied("tiny", join(at, "a")), join(at, "c"), ...flags));
    },
  },
  {
    name: "cert-bytes-only",
    what: "the certificate was issued without a forward pass",
    right: "told",
    tells: /forward pass|logits/,
    async run(at) {
      return await verify(await certified(at, "c", ["--verify", "bytes"]));
    },
  },
  {
    name: "cert-one-token",
    what: "the certificate is asked for under one token",
    right: "told",
    async run(at) {
      const folder = join(at, "c");
      const answer = await convert(await copied("tiny", join(at, "a")), folder, "--to", "hf", "--ids", "1");
      return answer.exit === 0 ? await verify(folder) : answer;
    },
  },
  {
    name: "packed-trailing-byte",
    what: "bytes follow the certificate of a packed file",
    right: "red",
    async run(at) {
      const packed = await made("convert", await copied("tiny", join(at, "a")), join(at, "c.isologit"));
      appendFileSync(packed, "\0evil");
      return await verify(packed);
    },
  },
];

attacks("certificates", rows);
