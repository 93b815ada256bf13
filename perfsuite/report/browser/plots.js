// What all plots share: the colours of the scheme, and drawing when they are seen.

const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
// plotly reads tags and entities in texts
const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
const plain = (text) => text.replace(/[&<>]/g, (letter) => ENTITIES[letter]);
const still = { displayModeBar: false, responsive: true };

function themed(layout) {
  const axis = { gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false };
  const made = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("muted") },
    margin: { l: 56, r: 12, t: 12, b: 48 },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"),
      font: { color: colour("ink") }, align: "left" },
    ...layout,
  };
  made.xaxis = { ...axis, ...layout.xaxis };
  made.yaxis = { ...axis, ...layout.yaxis }; // automargin draws twice: only where names stand
  return made;
}

// Data of the page is never touched: plotly adds to what it is given.
function draw(element, spec) {
  drawn.set(element, spec);
  const { data: traces, layout } = structuredClone(spec());
  for (const trace of traces) tint(trace);
  return Plotly.react(element, traces, themed(layout), still);
}

function tint(trace) {
  const series = trace.meta && trace.meta.series;
  if (!series) return;
  const own = colour(series) || colour("SAME");
  trace.marker = { color: own, ...trace.marker };
  if (trace.mode && trace.mode.includes("lines")) trace.line = { color: own, ...trace.line };
}

function redraw() {
  for (const [element, spec] of drawn) {
    if (element.isConnected) draw(element, spec); else drawn.delete(element);
  }
}

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    target.whenSeen();
  }
}, { rootMargin: "300px" });

function later(element, spec) {
  element.whenSeen = () => draw(element, spec);
  seen.observe(element);
}

function drawWhatIsLeft() {
  for (const element of document.querySelectorAll(".plot")) {
    if (element.whenSeen && !drawn.has(element)) element.whenSeen();
  }
}
