// Draws every chart of the page.
"use strict";
for (const source of document.querySelectorAll("script[data-chart]")) {
  const figure = JSON.parse(source.textContent);
  Plotly.newPlot(source.dataset.chart, figure.data, figure.layout, {displayModeBar: false, responsive: true});
}
// A chart that was drawn while it was folded away has no width.
for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", () => {
    for (const element of details.querySelectorAll(".chart")) Plotly.Plots.resize(element);
  });
}
