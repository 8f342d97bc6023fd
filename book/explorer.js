// The explorer: exchange one of two digits, or draw one, and watch every unit of a small network.
// mount(element, data) for a page; the default export is for a notebook (anywidget). Nothing is fetched.
// data: digits {pixels, labels}; networks [{name, selectivity, layers [{name, units, weights, bias, relu, balance}]}]:
// base64, pixels uint8, weights [units, inputs] and bias float16, balance int8: 127 serves the left digit alone, -127 the right.

const STYLE = `
.explorer { border: 1px solid currentColor; border-radius: 6px; padding: 0.8em; margin: 1em 0; max-width: 46em }
.explorer .pair { display: flex; flex-wrap: wrap; gap: 0.6em 1.2em; align-items: flex-start; margin-bottom: 0.7em }
.explorer canvas.digit { width: 112px; height: 112px; background: #000; touch-action: none; cursor: crosshair }
.explorer canvas.units { width: 100%; height: 54px; display: block; image-rendering: pixelated; border: 1px solid #8886 }
.explorer select, .explorer button { font: inherit; padding: 0.2em 0.5em; min-height: 2.2em; max-width: 100% }
.explorer fieldset { border: 0; padding: 0; margin: 0; min-width: 0 }
.explorer legend, .explorer h3 { font-size: 1em; font-weight: bold; margin: 0 0 0.2em; padding: 0 }
.explorer .answer { min-width: 13em; flex: 1 }
.explorer p { margin: 0.2em 0 }
.explorer .key { font-size: 0.85em }
.explorer .left { color: #7b3294 } .explorer .right { color: #806000 }
html[data-theme="dark"] .explorer .left { color: #c79bdb } html[data-theme="dark"] .explorer .right { color: #e6c200 }`;
const LEFT = [150, 70, 180], RIGHT = [204, 160, 0], NEITHER = [136, 136, 136]; // as in the figures
const ROWS = ["before", "after", "change"];

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** Float32Array of float16 numbers. */
export function halves(text) {
  const raw = bytes(text), view = new DataView(raw.buffer), out = new Float32Array(raw.length / 2);
  for (let i = 0; i < out.length; i++) {
    const h = view.getUint16(2 * i, true), sign = h & 0x8000 ? -1 : 1, exponent = (h >> 10) & 31, rest = h & 1023;
    if (exponent === 31) out[i] = rest ? NaN : sign * Infinity;
    else out[i] = sign * (exponent ? 2 ** (exponent - 15) * (1 + rest / 1024) : 2 ** -14 * (rest / 1024));
  }
  return out;
}

/** A network with its numbers decoded, which happens once, when it is first chosen. */
function decoded(network) {
  for (const layer of network.layers)
    if (!layer.w) {
      [layer.w, layer.b] = [halves(layer.weights), halves(layer.bias)];
      layer.sides = new Int8Array(bytes(layer.balance).buffer);
      layer.order = [...layer.sides.keys()].sort((i, j) => layer.sides[j] - layer.sides[i]);
    }
  return network;
}

/** Activations of every layer, after its nonlinearity, for a pair of pictures: [left, right], 784 numbers of 0 to 255 each. */
export function activations(network, pair) {
  let x = new Float32Array(1568);
  pair.forEach((picture, side) => picture.forEach((value, i) => (x[784 * side + i] = value / 255)));
  return decoded(network).layers.map(({ units, w, b, relu }) => {
    const out = new Float32Array(units), inputs = x.length;
    const live = [...x.keys()].filter((i) => x[i] !== 0); // most pixels are 0
    for (let u = 0; u < units; u++) {
      let sum = b[u];
      for (const i of live) sum += w[u * inputs + i] * x[i];
      out[u] = relu ? Math.max(sum, 0) : sum;
    }
    return (x = out);
  });
}

/** |v - w| / sqrt(|v| |w|), over all layers but the readout together; NaN for a silent network. */
export function score(before, after) {
  let difference = 0, v = 0, w = 0;
  before.slice(0, -1).forEach((layer, k) => layer.forEach((a, u) => {
    const b = after[k][u];
    difference += (a - b) ** 2;
    v += a * a;
    w += b * b;
  }));
  return Math.sqrt(difference) / Math.sqrt(Math.sqrt(v) * Math.sqrt(w));
}

function paint(canvas, layer, before, after) {
  const { units, order, sides } = layer, context = canvas.getContext("2d");
  canvas.width = units;
  canvas.height = 3;
  const picture = context.createImageData(units, 3), rows = [before, after, after.map((a, u) => a - before[u])];
  const most = Math.max(1e-9, ...rows.flatMap((row) => [...row].map(Math.abs)));
  rows.forEach((row, r) => order.forEach((u, column) => {
    const lean = sides[u] / 127, to = lean > 0 ? LEFT : RIGHT, at = 4 * (r * units + column);
    for (let c = 0; c < 3; c++) picture.data[at + c] = NEITHER[c] + Math.abs(lean) * (to[c] - NEITHER[c]);
    picture.data[at + 3] = 255 * Math.sqrt(Math.abs(row[u]) / most);
  }));
  context.putImageData(picture, 0, 0);
}

function show(canvas, pixels) {
  canvas.width = canvas.height = 28;
  const context = canvas.getContext("2d"), picture = context.createImageData(28, 28);
  pixels.forEach((value, i) => picture.data.set([value, value, value, 255], 4 * i));
  context.putImageData(picture, 0, 0);
}

/** Draw into pixels, a soft pen of about two pixels, where the pointer is. */
function draw(pixels, canvas, event) {
  const box = canvas.getBoundingClientRect();
  const x = (28 * (event.clientX - box.left)) / box.width, y = (28 * (event.clientY - box.top)) / box.height;
  for (let i = 0; i < 784; i++) {
    const far = Math.hypot((i % 28) + 0.5 - x, Math.floor(i / 28) + 0.5 - y);
    pixels[i] = Math.max(pixels[i], Math.min(255, 255 * (2 - far)));
  }
}

function element(name, parent, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  parent.append(made);
  return made;
}

export function mount(root, data) {
  const pixels = bytes(data.digits.pixels), labels = data.digits.labels, sides = ["left", "right"];
  const picture = (row) => pixels.slice(784 * row, 784 * row + 784);
  const random = (digit) => {
    const rows = labels.flatMap((label, row) => (digit === undefined || label === digit ? [row] : []));
    return rows[Math.floor(Math.random() * rows.length)];
  };
  const start = [labels.indexOf(3), labels.indexOf(4)];
  const now = start.map((row) => ({ pixels: picture(row), label: labels[row] }));
  let before = now.map((digit) => ({ ...digit }));
  before[1] = { pixels: picture(labels.indexOf(9)), label: 9 }; // the first exchange: a 9 for the 4
  element("style", root, { textContent: STYLE });
  const box = element("div", root, { className: "explorer", role: "group", ariaLabel: "Explorer: exchange a digit, watch the units" });

  const choice = element("p", box);
  element("label", choice, { textContent: "Network " }).append(element("select", choice, { className: "network" }));
  const select = box.querySelector("select");
  data.networks.forEach((network, i) => element("option", select, { value: i, textContent: network.name }));
  select.onchange = () => update();

  const row = element("div", box, { className: "pair" }), canvases = sides.map((side, s) => {
    const field = element("fieldset", row);
    element("legend", field, { textContent: `${side} digit`, className: side });
    const canvas = element("canvas", field, { className: "digit", role: "img" });
    const pick = element("select", element("p", field), { ariaLabel: `${side} digit: choose` });
    element("option", pick, { value: "", textContent: "choose…" });
    for (let digit = 0; digit < 10; digit++) element("option", pick, { value: digit, textContent: digit });
    pick.onchange = () => {
      if (pick.value !== "") exchange(s, random(Number(pick.value)));
      pick.value = "";
    };
    const buttons = element("p", field);
    element("button", buttons, { type: "button", textContent: "exchange", ariaLabel: `exchange the ${side} digit` }).onclick = () =>
      exchange(s, random());
    element("button", buttons, { type: "button", textContent: "clear", ariaLabel: `clear the ${side} digit, to draw one` }).onclick = () =>
      set(s, new Uint8Array(784), null);
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      set(s, now[s].label === null ? now[s].pixels : new Uint8Array(784), null);
      canvas.onpointermove(event);
    };
    canvas.onpointermove = (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      draw(now[s].pixels, canvas, event);
      update();
    };
    return canvas;
  });
  const answer = element("div", row, { className: "answer", ariaLive: "polite" });
  const layers = element("div", box);
  element("p", box, {
    className: "key",
    innerHTML: `Each column is a unit; its three rows are ${ROWS.join(", ")}: the stronger, the more active. Units are in the order of
      the digit that they serve: <b class="left">left</b> first, then both (grey), then <b class="right">right</b>. Draw in a picture to
      make a digit of your own.`,
  });

  function set(side, pixels, label) {
    before = now.map((digit) => ({ ...digit, pixels: digit.pixels.slice() }));
    now[side] = { pixels, label };
    update();
  }
  const exchange = (side, row) => set(side, picture(row), labels[row]);

  function update() {
    const network = decoded(data.networks[select.value]), seen = [before, now].map((pair) => activations(network, pair.map((d) => d.pixels)));
    const words = ([left, right]) => `${left.label ?? "your"} and ${right.label ?? "your"}`;
    const total = (pair) => (pair.some((d) => d.label === null) ? "" : `; the sum is ${pair[0].label + pair[1].label}`);
    const out = seen.map((all) => [...all.at(-1)].map((value) => value.toFixed(1)).join(", "));
    const counts = sides.map((side, s) => {
      const of = (lean) => (s === 0 ? lean > 63 : lean < -63);
      let moved = 0, all = 0;
      network.layers.slice(0, -2).forEach((layer, k) => layer.sides.forEach((lean, u) => {
        all += of(lean);
        moved += of(lean) && Math.abs(seen[1][k][u] - seen[0][k][u]) > 0.05 * Math.max(1e-9, ...seen[1][k], ...seen[0][k]);
      }));
      return `${moved} of ${all} units of the ${side} digit moved`;
    });
    canvases.forEach((canvas, s) => {
      show(canvas, now[s].pixels);
      canvas.ariaLabel = `${sides[s]} digit: ${now[s].label ?? "drawn by you"}`;
    });
    answer.replaceChildren();
    const difference = score(...seen);
    for (const text of [
      `Before: ${words(before)}; answer ${out[0]}${total(before)}.`,
      `After: ${words(now)}; answer ${out[1]}${total(now)}.`,
      `Original score of this exchange: ${Number.isNaN(difference) ? "none, the network is silent" : difference.toFixed(2)}.`,
      `${counts.join("; ")}.`,
      network.selectivity === null ? "" : `Selectivity minus chance of the last hidden layer: ${network.selectivity.toFixed(2)}.`,
    ])
      element("p", answer, { textContent: text });
    layers.replaceChildren();
    network.layers.slice(0, -1).forEach((layer, k) => {
      element("h3", layers, { textContent: `${layer.name}, ${layer.units} units` });
      const canvas = element("canvas", layers, { className: "units", role: "img", ariaLabel: `units of ${layer.name}: ${ROWS.join(", ")}` });
      paint(canvas, layer, seen[0][k], seen[1][k]);
    });
  }
  update();
  return { activations: (n, left, right) => activations(data.networks[n], [picture(left), picture(right)]).map((a) => [...a]), exchange };
}

export default { render: ({ model, el }) => void mount(el, model.get("data")) };
