/**
 * What is returned out of a block with `using`, or out of a `try`, is there already: a promise is awaited first. A promise
 * that leaves unawaited settles after the block has closed its files, and after its `catch`. The compiler says which
 * values are promises or streams.
 */
import type { Node, ReturnStatement, Statement } from "typescript/unstable/ast";
import { NodeFlags } from "typescript/unstable/ast";
import {
  isAwaitExpression,
  isBlock,
  isForOfStatement,
  isFunctionLikeDeclaration,
  isReturnStatement,
  isTryStatement,
  isVariableDeclarationList,
  isVariableStatement,
} from "typescript/unstable/ast/is";
import type { FileSystem } from "typescript/unstable/fs";
import { createVirtualFileSystem } from "typescript/unstable/fs";
import { API, type Project, type Type } from "typescript/unstable/sync";
import { expect, it } from "vitest";

const root = new URL("..", import.meta.url).pathname;

/** `file:line  text` of each return that leaves too early. */
function earlyReturns(config: string, wanted: RegExp, fs?: FileSystem): string[] {
  const api = new API({ cwd: root, ...(fs && { fs }) });
  try {
    const project = api.updateSnapshot({ openProjects: [config] }).getProject(config)!;
    const found: string[] = [];
    const names = project.program.getSourceFileNames().filter((file) => wanted.test(file));
    expect(names.length, "sources found").toBeGreaterThan(0);
    for (const name of names) {
      const file = project.program.getSourceFile(name)!;
      const lineOf = (node: Node) => file.text.slice(0, node.getStart()).split("\n").length;
      const visit = (node: Node): void => {
        if (isReturnStatement(node) && isClosedBehind(node) && isPending(project, node))
          found.push(`${name.replace(root, "")}:${lineOf(node)}  ${node.getText().split("\n")[0]}`);
        node.forEachChild(visit);
      };
      visit(file);
    }
    return found;
  } finally {
    api.close();
  }
}

/** Whether something runs between this return and the end of its function: a disposal, a `catch`, a `finally`. */
function isClosedBehind(from: ReturnStatement): boolean {
  for (let node: Node = from; !isFunctionLikeDeclaration(node); node = node.parent) {
    const { parent } = node;
    if (parent === undefined) return false;
    if (isBlock(parent) && parent.statements.some(isUsing)) return true;
    if (isForOfStatement(parent) && isUsingList(parent.initializer)) return true;
    if (isTryStatement(parent) && node !== parent.finallyBlock)
      if (parent.finallyBlock !== undefined || node === parent.tryBlock) return true;
  }
  return false;
}

const isUsing = (one: Statement) => isVariableStatement(one) && isUsingList(one.declarationList);
const isUsingList = (list: Node) => isVariableDeclarationList(list) && (list.flags & NodeFlags.Using) !== 0;

/** A promise, an iterator or a stream that nobody awaited. */
function isPending({ checker }: Project, { expression }: ReturnStatement): boolean {
  if (expression === undefined || isAwaitExpression(expression)) return false;
  const pending = (type: Type): boolean => {
    if (type.isUnionType()) return type.getTypes().some(pending);
    const names = checker.getPropertiesOfType(type).map(({ name }) => name);
    const has = (name: RegExp) => names.some((one) => name.test(one));
    return has(/^then$/) || has(/asyncIterator/) || (has(/^next$/) && has(/@iterator/));
  };
  const type = checker.getTypeAtLocation(expression);
  return type !== undefined && pending(type);
}

it("nothing leaves a block before it is there", () => {
  const ours = new RegExp(`^${root}(bin|src|formats|kernels)/[^.]*[.]ts$`);
  expect(earlyReturns(`${root}tsconfig.json`, ours)).toEqual([]);
});

/** One function a line: those called `early…` are at fault. */
const SAMPLE = `
class Failure extends Error { next = ""; }
declare const it: AsyncDisposable & Disposable & { read(): Promise<number>; stream(): AsyncGenerator<number>; size: number };
async function earlyCall() { await using one = it; return one.read(); }
async function earlyName() { await using one = it; const read = one.read(); return read; }
async function earlyNested(yes: boolean) { using one = it; if (yes) { for (;;) return one.read(); } return 0; }
async function earlyEither(given: number | undefined) { await using one = it; return given ?? one.read(); }
function earlyStream() { using one = it; return one.stream(); }
function earlyIterator() { using one = it; return [one.size].values(); }
async function earlyCatch() { try { return it.read(); } catch { return 0; } }
async function earlyFinally() { try { return await it.read(); } catch { return it.read(); } finally { it.size; } }
async function earlyLoop() { for (await using one of [it]) return one.read(); return 0; }
async function errorWithNext() { try { return new Failure(); } catch { return 0; } }
async function awaited() { await using one = it; return await one.read(); }
async function plain() { using one = it; return one.size; }
async function inside() { await using one = it; const later = () => { return it.read(); }; return await later(); }
async function apart() { { await using one = it; one.size; } return it.read(); }
async function afterCatch() { try { return 0; } catch { return it.read(); } }
`;

it("the rule sees each way to leave early, and accuses nothing else", () => {
  const config = { compilerOptions: { target: "esnext", strict: true, types: [] }, files: ["sample.ts"] };
  const files = { "/sample/tsconfig.json": JSON.stringify(config), "/sample/sample.ts": SAMPLE };
  const lines = earlyReturns("/sample/tsconfig.json", /sample\.ts$/, createVirtualFileSystem(files));
  const functions = SAMPLE.split("\n").map((line) => /function (\w+)/.exec(line)?.[1] ?? "");
  const accused = lines.map((line) => functions[Number(/:(\d+) /.exec(line)![1]) - 1]);
  expect(accused).toEqual(functions.filter((name) => name.startsWith("early")));
});
