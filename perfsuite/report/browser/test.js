// A test that was opened: evidence, figures with samples, ceilings, surroundings.

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const isolated = (text) => make("bdi", {}, text);

function badge(verdict) {
  return make("span", { class: `badge ${verdict}` },
    make("span", { "aria-hidden": "true" }, data.signs[verdict][0]), ` ${verdict}`);
}

function open(number, place) {
  const test = data.tests[number];
  $("test-title").replaceChildren(isolated(test.name));
  const content = $("test-body");
  content.replaceChildren(summary(test), ...evidence(test));
  const samples = make("div");
  const list = figures(test, (figure) => showFigure(samples, figure));
  content.append(make("h3", {}, "Figures"), list, samples, ...ceilings(test),
    ...surroundings(test), ...published(test));
  const dialog = $("test");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  const first = place ?? worstOf(test);
  const buttons = list.querySelectorAll("tbody button");
  if (buttons.length) buttons[first].click();
  for (const element of content.querySelectorAll(".plot")) element.whenSeen?.();
}

function worstOf(test) {
  const ranks = test.figures.map((figure) => data.order.indexOf(figure.verdict));
  return ranks.indexOf(Math.min(...ranks));
}

function summary(test) {
  const tier = test.tier === "static" ? "compiled" : "measured";
  const words = [test.engine && `on ${test.engine}`, tier, test.suite, test.machine]
    .filter(Boolean);
  return make("p", {}, badge(test.verdict), " ", make("span", { class: "muted" },
    isolated(words.join(" · ")), make("br"), isolated(test.nodeid)));
}

function evidence(test) {
  if (!test.evidence.length) return [];
  const lines = test.evidence.map((text) => make("li", {}, isolated(text)));
  return [make("h3", {}, "Evidence"), make("ul", { class: "evidence" }, ...lines)];
}

const HEADER = ["figure", "verdict", "value", "±", "n", "baseline", "ratio", "±", "limit",
  "ceiling"];

function figures(test, choose) {
  const head = HEADER.map((text, place) =>
    make("th", { scope: "col", ...(place > 1 ? { class: "number" } : {}) }, text));
  const lines = test.figures.map((figure) => {
    const [name, ...cells] = figure.cells;
    const button = make("button", { type: "button", class: "open" }, isolated(name));
    const line = make("tr", {}, make("th", { scope: "row" }, button),
      make("td", {}, badge(figure.verdict)),
      ...cells.slice(0, -1).map((text) => make("td", { class: "number" }, text)));
    button.addEventListener("click", () => {
      for (const other of line.parentElement.rows) other.removeAttribute("aria-current");
      line.setAttribute("aria-current", "true");
      choose(figure);
    });
    return line;
  });
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures" },
    make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines)));
}

function showFigure(place, figure) {
  const metric = data.metrics[figure.metric];
  const parts = [make("h3", {}, isolated(figure.cells[0]))];
  if (metric) parts.push(make("p", { class: "caption" }, metric.formula));
  if (figure.note) parts.push(make("p", { class: "caption" }, isolated(figure.note)));
  const plotted = figure.head.length > 0;
  const element = make("div", { class: "plot", role: "img",
    "aria-label": "Samples of base and head; their medians stand in the table above" });
  if (plotted) parts.push(element, make("p", { class: "caption" }, samplesCaption(figure)));
  else if (metric) parts.push(make("p", { class: "caption" }, "An exact figure: no samples."));
  place.replaceChildren(...parts);
  if (plotted) draw(element, () => samplesPlot(figure, metric));
}

function samplesCaption(figure) {
  const shown = figure.head.reduce((sum, process) => sum + process.length, 0);
  const part = shown < figure.count ? `${shown} of ${figure.count} samples. ` : "";
  const base = figure.base.length
    ? "Base: squares are the medians of its processes, which is what a baseline keeps. "
    : "There is no base to draw. ";
  return `${part}${base}Head: dots are samples, bars the medians of their process.`
    + (figure.base.length && figure.ratio[3] ? " The line is the limit." : "");
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function samplesPlot(figure, metric) {
  const [base, ...head] = [figure.base, ...figure.head]
    .map((process) => process.map((value) => value / figure.scale));
  const gap = base.length ? base.length + 1 : 0;
  const places = head.map((_, number) => gap + number + 1);
  const unit = metric.unit === "times" ? "" : metric.unit;
  const traces = [];
  if (base.length) {
    traces.push({ type: "scatter", mode: "markers", x: base.map((_, n) => n + 1), y: base,
      marker: { color: colour("muted"), symbol: "square-open", size: 9 }, hoverinfo: "y" });
  }
  const strip = head.flatMap((process, n) => process.map((_, k) =>
    places[n] + (process.length > 1 ? (k / (process.length - 1) - 0.5) * 0.5 : 0)));
  traces.push({ type: "scatter", mode: "markers", x: strip, y: head.flat(), hoverinfo: "y",
    marker: { color: colour(figure.verdict), size: 6, opacity: 0.6 } });
  traces.push({ type: "scatter", mode: "lines", hoverinfo: "skip",
    x: places.flatMap((at) => [at - 0.36, at + 0.36, null]),
    y: head.flatMap((process) => [median(process), median(process), null]),
    line: { color: colour("ink"), width: 2 } });
  const limit = figure.ratio[3];
  const shapes = [];
  if (base.length && limit) {
    const level = metric.kind === "throughput" ? median(base) / limit : median(base) * limit;
    shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: level, y1: level,
      line: { color: colour("WORSE"), width: 1, dash: "dash" } });
  }
  const ticks = [...base.map((_, n) => [n + 1, `base ${n + 1}`]),
    ...places.map((at, n) => [at, `head ${n + 1}`])];
  const step = Math.ceil(ticks.length / 16);
  const told = ticks.filter((_, n) => n % step === 0);
  return { data: traces, layout: { shapes, height: 300,
    xaxis: { tickvals: told.map(([at]) => at), ticktext: told.map(([, text]) => text),
      showgrid: false, range: [0.3, gap + head.length + 0.7] },
    yaxis: { tickformat: "~s", ticksuffix: unit, hoverformat: ".4s" } } };
}

function ceilings(test) {
  const own = test.figures.filter((figure) => figure.ceiling !== null);
  if (!own.length) return [];
  const cached = own.some((figure) => figure.cached);
  const element = make("div", { class: "plot", role: "img",
    "aria-label": "Share of the machine's ceiling; the numbers stand in the table above" });
  element.whenSeen = () => draw(element, () => ({
    data: [{ type: "bar", orientation: "h",
      y: own.map((figure) => plain(figure.cells[0])).reverse(),
      x: own.map((figure) => figure.ceiling).reverse(), hoverinfo: "skip",
      text: own.map((figure) => `${Math.round(figure.ceiling * 100)} %`).reverse(),
      textposition: "outside", cliponaxis: false, marker: { color: colour("BETTER") } }],
    layout: { height: 70 + 30 * own.length, bargap: 0.45,
      xaxis: { tickformat: ".0%", range: [0, Math.max(1, ...own.map((f) => f.ceiling)) * 1.08] },
      yaxis: { showgrid: false, automargin: true } },
  }));
  return [make("h3", {}, "Share of the ceiling"), element, make("p", { class: "caption" },
    "The least time that this machine's bandwidth and matrix peak allow, over the time taken."
    + (cached ? " The working set is near the cache, so the memory ceiling is no bound." : ""))];
}

function surroundings(test) {
  const differing = test.surroundings.filter(([, , , differs]) => differs).length;
  const lines = test.surroundings.map(([name, base, head, differs]) =>
    make("tr", differs ? { class: "differs" } : {}, make("th", { scope: "row" }, isolated(name)),
      make("td", {}, isolated(base)), make("td", {}, isolated(head)),
      make("td", {}, differs ? "≠ differs" : "")));
  const head = ["", "base", "head", ""].map((text) => make("th", { scope: "col" }, text));
  const words = differing ? `Environment: ${differing} differ` : "Environment";
  return [make("h3", {}, words), make("div", { class: "scroll surroundings", tabindex: "0",
    role: "region", "aria-label": "Environment of base and head" }, make("table", {},
    make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines)))];
}

function published(test) {
  const found = [];
  if (test.published.length) {
    found.push(make("h3", {}, "Published"), make("ul", { class: "evidence" },
      ...test.published.map((text) => make("li", {}, isolated(text)))));
  }
  if (test.standsFor.length) {
    const list = make("ul", { class: "evidence" },
      ...test.standsFor.map((text) => make("li", {}, isolated(text))));
    found.push(make("details", {}, make("summary", {}, `Stands for ${test.standsFor.length} cells`),
      list));
  }
  return found;
}
