"use strict";
// Airflow keeps its theme in localStorage, which this frame of the same origin shares.
function useTheme() {
  let theme = null;
  try {
    theme = window.localStorage.getItem("theme");
  } catch (error) {
    // storage is blocked: the system's preference decides
  }
  const root = document.documentElement;
  if (theme === "light" || theme === "dark") {
    root.dataset.theme = theme;
  } else {
    delete root.dataset.theme;
  }
}
useTheme();
window.addEventListener("storage", useTheme);
// The frame may not navigate the window around it, so a link to a page of Airflow is followed by that window itself.
document.addEventListener("click", (event) => {
  const link = event.target.closest ? event.target.closest("a[data-airflow]") : null;
  if (!link || window.parent === window) {
    return;
  }
  event.preventDefault();
  const outside = window.parent.document.createElement("a");
  outside.href = link.href;
  window.parent.document.body.append(outside);
  outside.click();
  outside.remove();
});
// Copy buttons: shown only where this script runs.
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const shown = document.getElementById(button.dataset.copy);
      let done = true;
      try {
        await navigator.clipboard.writeText(shown.textContent);
      } catch (error) {
        // without the right to write the clipboard, the line is selected for Ctrl-C
        done = false;
        window.getSelection().selectAllChildren(shown);
      }
      button.textContent = done ? "Copied" : "Press Ctrl-C";
    });
  }
});
