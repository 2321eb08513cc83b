// What a page cannot do without a script: the theme, questions before changes, plots, live runs.
"use strict";
(() => {
  const root = document.documentElement;

  // -- light and dark
  const dark = () => root.dataset.theme === "dark" ||
    (root.dataset.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    root.dataset.theme = dark() ? "light" : "dark";
    document.cookie = `ironbeat_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax`;
    plots.forEach((plot) => plot.draw());
  });

  // -- a question before a change: <form data-confirm="…">
  const dialog = document.getElementById("confirm");
  document.addEventListener("submit", (event) => {
    const form = event.target, asked = form.dataset.confirm;
    if (!asked || form.dataset.sure) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    document.getElementById("confirm-text").textContent = asked;
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => {
      if (dialog.returnValue !== "yes") return;
      form.dataset.sure = "yes";
      form.requestSubmit(event.submitter || undefined);
      delete form.dataset.sure;
    }, { once: true });
    dialog.showModal();
  }, true);

  // -- parts that load themselves again leave alone what somebody reads or is about to press
  document.addEventListener("htmx:beforeRequest", (event) => {
    const part = event.detail.elt, timed = (part.getAttribute("hx-trigger") || "").includes("every");
    if (timed && (document.hidden || (part !== document.activeElement && part.contains(document.activeElement)))) {
      event.preventDefault();
    }
  });
  // Errors come as parts of a page, too, and say where they belong.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.xhr.getResponseHeader("HX-Retarget")) event.detail.shouldSwap = true;
  });

  // -- plots of queues over time
  const colours = ["#3b82f6", "#e0803a", "#3fa56b", "#a472d8", "#d4566a", "#2ca6a4", "#b99a2c", "#8894a5"];
  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const plots = [];
  class Plots {
    constructor(box) {
      this.box = box;
      this.empty = box.parentElement.querySelector("[data-plots-empty]");
      this.drawn = [];
      this.hours = 3;
      const buttons = box.parentElement.querySelectorAll("[data-hours]");
      buttons.forEach((button) => button.addEventListener("click", () => {
        this.hours = Number(button.dataset.hours);
        buttons.forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
        this.load();
      }));
      addEventListener("resize", () => { clearTimeout(this.later); this.later = setTimeout(() => this.draw(), 150); });
      setInterval(() => { if (!document.hidden) this.load(); }, 30000);
      this.load();
    }
    async load() {
      const address = new URL(this.box.dataset.plots, location.href);
      address.searchParams.set("hours", this.hours);
      const answer = await fetch(address, { headers: { "hx-request": "true" } });
      if (!answer.ok || answer.status === 204) return;
      this.course = await answer.json();
      this.draw();
    }
    draw() {
      const course = this.course;
      if (!course) return;
      const nothing = !course.lines.length;
      this.box.hidden = nothing;
      if (this.empty) this.empty.hidden = !nothing;
      this.drawn.forEach((plot) => plot.destroy());
      this.drawn = [];
      if (nothing) return;
      const zone = this.box.dataset.zone;
      this.box.querySelectorAll("[data-plot]").forEach((place) => {
        const what = place.dataset.plot;
        const axis = { stroke: style("--muted"), grid: { stroke: style("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
        const day = new Intl.DateTimeFormat("en-CA", { timeZone: zone, month: "2-digit", day: "2-digit" });
        const hour = new Intl.DateTimeFormat("en-GB", { timeZone: zone, hour: "2-digit", minute: "2-digit" });
        const told = (time) => this.hours > 24 ? `${day.format(time * 1e3)} ${hour.format(time * 1e3)}` : hour.format(time * 1e3);
        const series = course.lines.map((line, number) => ({
          label: line.queue, stroke: colours[number % colours.length], width: 1.5, points: { show: false }, spanGaps: false,
        }));
        const options = {
          width: Math.max(260, place.clientWidth), height: 200, series: [{ value: (_, time) => time === null ? "–" : told(time) }, ...series],
          axes: [{ ...axis, values: (_, times) => times.map(told) }, { ...axis, size: 52 }], scales: { y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.05] } },
          cursor: { y: false }, legend: { show: true }, tzDate: (time) => uPlot.tzDate(new Date(time * 1e3), zone),
        };
        place.replaceChildren();
        this.drawn.push(new uPlot(options, [course.times, ...course.lines.map((line) => line[what])], place));
      });
    }
  }

  // -- a run as it goes on: the server tells of every change
  const follow = (box) => {
    const source = new EventSource(box.dataset.events);
    source.addEventListener("run", (event) => {
      const told = JSON.parse(event.data);
      box.querySelectorAll("[data-live]").forEach((place) => {
        const text = told[place.dataset.live];
        if (text !== undefined && place.textContent !== text) place.textContent = text;
      });
      const state = box.querySelector("[data-state]");
      if (state) { state.className = `state ${told.state}`; state.textContent = told.state_said; }
      const filled = box.querySelector("[data-progress]");
      if (filled && told.percent !== null) filled.setAttribute("width", told.percent);
      if (told.ended) { source.close(); setTimeout(() => location.reload(), 400); }
    });
    source.addEventListener("gone", () => source.close());
  };

  const start = () => {
    document.querySelectorAll("[data-plots]").forEach((box) => plots.push(new Plots(box)));
    document.querySelectorAll("[data-events]").forEach(follow);
    // The value of a slider stands beside it.
    document.querySelectorAll("input[type=range]").forEach((slider) => {
      const told = slider.form && slider.form.querySelector("output");
      const tell = () => { if (told) told.textContent = `${Math.round(slider.value * 100)} %`; };
      slider.addEventListener("input", tell);
      tell();
    });
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start); else start();
})();
