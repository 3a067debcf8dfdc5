// Formulas that arithmatex has marked, set by KaTeX; one that it cannot read stays as it was written.
const macros = { "\\E": "\\operatorname{E}", "\\Cov": "\\operatorname{Cov}" };

document.addEventListener("DOMContentLoaded", () => {
  for (const node of document.querySelectorAll(".arithmatex")) {
    const displayMode = node.tagName === "DIV";
    katex.render(node.textContent.trim().slice(2, -2), node, { displayMode, macros, throwOnError: false });
  }
});
