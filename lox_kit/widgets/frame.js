// What ipywidgets and plotly leave undone in JupyterLab: a figure follows the width of its panel,
// keys pressed in a panel are the panel's, not the notebook's, and a text that was opened stays so.
function render({ el }) {
  const panel = () => el.closest(".lox-panel");

  // Also when the panel comes back into view: plotly does not resize what is hidden.
  const fits = (figure) => {
    const drawn = figure.querySelector(".main-svg")?.getBoundingClientRect();
    const near = (a, b) => Math.abs(a - b) < 2;
    return !drawn || (near(drawn.width, figure.clientWidth) && near(drawn.height, figure.clientHeight));
  };
  const fit = () => {
    const figures = [...(panel()?.querySelectorAll(".js-plotly-plot") ?? [])];
    figures.forEach((figure) => size.observe(figure));
    if (!figures.every(fits)) {
      window.dispatchEvent(new Event("resize")); // plotly listens to the window only
    }
    if (panel()) {
      tables.observe(panel(), { childList: true, subtree: true });
    }
  };
  const size = new ResizeObserver(() => requestAnimationFrame(fit));
  const view = new IntersectionObserver(() => requestAnimationFrame(fit));
  size.observe(el);
  view.observe(el);

  // Enter on a button would edit the cell, an arrow on a slider leave it. Shift+Enter and what has
  // Ctrl, Alt or Meta still reach JupyterLab, which looks for the attribute as the key is pressed.
  const own = (event) => {
    const mine = panel();
    if (mine?.contains(event.target)) {
      const theirs = event.ctrlKey || event.altKey || event.metaKey;
      const runs = event.shiftKey && event.key === "Enter";
      // On the focused element, too: an arrow on a list matches there, before the panel is asked.
      for (const place of [mine, event.target]) {
        place.toggleAttribute("data-lm-suppress-shortcuts", !theirs && !runs);
      }
    }
  };
  window.addEventListener("keydown", own, true);

  // Tables are written anew while a job works: what had been opened in them is opened again.
  const opened = new Set();
  const remember = ({ target }) => {
    if (target.matches?.(".lox-text") && panel()?.contains(target)) {
      opened[target.open ? "add" : "delete"](target.textContent);
    }
  };
  const tables = new MutationObserver(() => {
    for (const text of panel()?.querySelectorAll("details.lox-text:not([open])") ?? []) {
      text.open = opened.has(text.textContent);
    }
  });
  window.addEventListener("toggle", remember, true); // which does not bubble

  return () => {
    size.disconnect();
    view.disconnect();
    tables.disconnect();
    window.removeEventListener("toggle", remember, true);
    window.removeEventListener("keydown", own, true);
  };
}
export default { render };
