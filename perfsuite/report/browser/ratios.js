// The plot of every ratio.

// Ticks of a ratio's logarithmic axis; plotly's own have no words for 0.95 and 1.05.
const TICKS = [0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 1.5, 2, 3, 4];

// One that grew a thousandfold would make all others a line: beyond a factor of 4 is the edge.
const edged = (ratio) => Math.min(4, Math.max(0.25, ratio));

function ratioAxis(values) {
  const low = Math.min(0.9, ...values) / 1.06, high = Math.max(1.12, ...values) * 1.06;
  const [from, to] = [Math.log10(low), Math.log10(high)];
  const ticks = [];
  for (const tick of TICKS.filter((t) => t >= low && t <= high)) {
    const last = ticks.at(-1);
    const near = last && Math.log10(tick / last) < (to - from) / 14;
    if (near && tick === 1) ticks.pop();
    if (!near || tick === 1) ticks.push(tick);
  }
  return { type: "log", range: [from, to], tickvals: ticks,
    ticktext: ticks.map((tick) => ([0.25, 4].includes(tick) ? `${tick} …` : String(tick))),
    title: { text: "ratio" }, fixedrange: true };
}

// Markers are elements of their own, which thousands make slow: the rest are dashes of one path.
const MARKED = 400;
const PATH = { type: "scatter", mode: "lines", hoverinfo: "skip", connectgaps: false };
let worst = MARKED; // how many are drawn

function ratioPoints() {
  return data.ratios.slice(0, worst).map(([test, place], rank) => {
    const figure = data.tests[test].figures[place];
    const [ratio, low, high, limit] = figure.ratio;
    return { rank: rank + 1, test, place, limit, verdict: figure.verdict, y: edged(ratio),
      low: edged(low ?? ratio), high: edged(high ?? ratio) };
  });
}

function ratioPlot() {
  const points = ratioPoints();
  const limits = { ...dashes(points, 0.5, (p) => p.limit),
    line: { color: colour("ink"), width: 1 } };
  return { data: [...data.order.flatMap((verdict) => tracesOf(verdict, points)), limits], layout: {
    hovermode: "closest", height: 400,
    xaxis: { title: { text: "figures, the worst first" }, showgrid: false,
      range: [0.25, points.length + 0.75] },
    yaxis: ratioAxis(points.map((p) => p.y)),
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1,
      line: { color: colour("muted"), width: 1, dash: "dot" } }],
  } };
}

// Intervals and estimates of one verdict.
function tracesOf(verdict, points) {
  const own = points.filter((p) => p.verdict === verdict);
  const marked = own.filter((p) => p.rank <= MARKED), rest = own.filter((p) => p.rank > MARKED);
  const many = points.length > 150, paint = colour(verdict);
  const intervals = { ...PATH, x: own.flatMap((p) => [p.rank, p.rank, null]),
    y: own.flatMap((p) => [p.low, p.high, null]), opacity: 0.5,
    line: { color: paint, width: many ? 1 : 2 } };
  const markers = { type: "scatter", mode: "markers", name: verdict, ...named(marked),
    marker: { color: paint, symbol: data.signs[verdict][1], size: many ? 6 : 9 } };
  const others = { ...dashes(rest, 0.4, (p) => p.y), line: { color: paint, width: 2 } };
  return own.length ? [intervals, markers, ...(rest.length ? [others] : [])] : [];
}

function dashes(points, half, level) {
  return { ...PATH, x: points.flatMap((p) => [p.rank - half, p.rank + half, null]),
    y: points.flatMap((p) => [level(p), level(p), null]) };
}

function named(points) {
  return { x: points.map((p) => p.rank), y: points.map((p) => p.y), text: points.map(told),
    hoverinfo: "text", customdata: points.map((p) => [p.test, p.place]) };
}

function told(p) {
  const test = data.tests[p.test], { cells, ratio: [, low, high] } = test.figures[p.place];
  const interval = low !== null && low !== high ? ` [${low}, ${high}]` : "";
  return [test.name + (test.engine ? ` on ${test.engine}` : ""),
    `${p.verdict}: ${cells[0]} ${cells[1]}, was ${cells[4]}`,
    `ratio ${cells[5]}${interval}, limit ${cells[7]}`].map(plain).join("<br>");
}

function wireRatios() {
  const element = $("ratios");
  if (!element) return;
  worst = Number(document.querySelector("[data-worst][aria-pressed=true]").dataset.worst);
  draw(element, ratioPlot).then(() => element.on("plotly_click", ({ points }) => {
    const found = points.find((point) => point.customdata);
    if (found) open(...found.customdata);
  }));
  const buttons = [...document.querySelectorAll("[data-worst]")];
  const choose = (button) => {
    worst = Number(button.dataset.worst);
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    draw(element, ratioPlot);
  };
  for (const button of buttons) button.addEventListener("click", () => choose(button));
}
