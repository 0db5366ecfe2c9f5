"use strict";
(() => {
  // The pictures are there without this script; it swaps one for a version that zooms, when asked to.
  const figures = JSON.parse(document.getElementById("figure-data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const open = new Set();

  const coloured = (value, style) => {
    if (typeof value === "string" && value.startsWith("var(")) return style.getPropertyValue(value.slice(4, -1)).trim();
    if (Array.isArray(value)) return value.map((one) => coloured(one, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one, style)]));
  };

  const load = () => {
    if (window.Plotly) return;
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly-source").textContent;
    document.body.append(script);
  };

  const draw = (figure) => {
    const { data, layout, config } = coloured(figures[figure.id], getComputedStyle(document.documentElement));
    return window.Plotly.react(figure.querySelector(".live"), data, layout, config);
  };

  const toggle = (button) => {
    const figure = document.getElementById(button.dataset.figure);
    const live = !open.has(figure);
    figure.classList.toggle("wide", live);
    figure.querySelector(".live").hidden = !live;
    figure.querySelector(".picture").hidden = live;
    button.textContent = live ? "Back to the picture" : "Explore";
    button.setAttribute("aria-pressed", String(live));
    if (live) {
      open.add(figure);
      load();
      draw(figure);
    } else {
      open.delete(figure);
      window.Plotly.purge(figure.querySelector(".live"));
    }
  };

  for (const button of document.querySelectorAll(".explore")) {
    button.hidden = false;
    button.addEventListener("click", () => toggle(button));
  }
  dark.addEventListener("change", () => open.forEach(draw));

  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not([open])")) {
      details.open = true;
      opened.push(details);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const details of opened.splice(0)) details.open = false;
  });
})();
