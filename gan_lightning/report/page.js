"use strict";
// The page can be read without this: it then shows the curves against steps, and the last grids.
for (const choice of document.querySelectorAll("input[name=axis]")) {
  choice.addEventListener("change", () => { document.body.dataset.axis = choice.value; });
  if (choice.checked) document.body.dataset.axis = choice.value; // browsers keep it when a page is loaded again
}

for (const box of document.querySelectorAll("input[data-run]")) {
  const show = () => {
    for (const curve of document.querySelectorAll(`.chart .run-${box.dataset.run}`)) {
      curve.style.display = box.checked ? "" : "none";
    }
  };
  box.addEventListener("change", show);
  show();
}

const slider = document.getElementById("step");
if (slider) {
  const steps = slider.dataset.steps.split(",").map(Number);
  const output = document.querySelector("output[for=step]");
  const show = () => {
    const step = steps[slider.value];
    output.textContent = step.toLocaleString("en");
    slider.setAttribute("aria-valuetext", `step ${step}`);
    for (const figure of document.querySelectorAll("[data-grids]")) {
      const grids = [...figure.querySelectorAll("img")];
      const last = grids.filter((grid) => Number(grid.dataset.step) <= step).pop() ?? grids[0];
      for (const grid of grids) grid.hidden = grid !== last;
      figure.querySelector(".shown").textContent = Number(last.dataset.step).toLocaleString("en");
    }
  };
  slider.addEventListener("input", show);
  show();
}
