// The explorer: exchange one of two digits, or draw one, and watch every unit of a small network.
// mount(element, data) for a page; the default export is for a notebook (anywidget). Nothing is fetched.
// data: digits {pixels, labels}; networks [{name, layers [{name, units, selectivity, chance, balance, ...}]}], in base64:
// pixels uint8; balance int8, 127 serves the left digit alone, -127 the right; weights [units, inputs] and bias float16, with
// relu; or, of networks that are not matrices, values float16 [10 left digits, 10 right ones, units], for the first picture of each.

const STYLE = `
.explorer { border: 1px solid currentColor; border-radius: 6px; padding: 0.7em; margin: 1em 0; max-width: 50em; container-type: inline-size; line-height: 1.35 }
.explorer .board { display: grid; gap: 0.5em 1.2em; align-items: start }
.explorer .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0.8em; max-width: 20em }
.explorer canvas.digit { width: 112px; height: 112px; display: block; background: #000; touch-action: none; cursor: crosshair }
.explorer .strip { display: grid; grid-template-columns: 3.4rem minmax(0, 1fr); align-items: center }
.explorer .strip h3 { grid-column: 1 / 3; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.explorer .strip span { grid-column: 1; font-size: 12px; line-height: 14px; height: 14px }
.explorer canvas.units { grid-area: 2 / 2 / 5 / 3; width: 100%; height: 42px; display: block; image-rendering: pixelated; outline: 1px solid #8886 }
.explorer select, .explorer button { font: inherit; padding: 0.1em 0.4em; min-height: 2em; max-width: 100% }
.explorer fieldset { border: 0; padding: 0; margin: 0; min-width: 0 }
.explorer legend, .explorer h3 { font-size: 0.9em; font-weight: bold; margin: 0 0 0.1em; padding: 0 }
.explorer h3 i { font-weight: normal; font-style: normal }
.explorer .answer { min-height: 11em; margin-top: 0.6em }
.explorer p { margin: 0.2em 0 }
.explorer .key { font-size: 0.85em }
.explorer .left { color: #7b3294 } .explorer .right { color: #806000 }
html[data-theme="dark"] .explorer .left { color: #c79bdb } html[data-theme="dark"] .explorer .right { color: #e6c200 }
@container (min-width: 38em) {
  .explorer .board { grid-template-columns: 20em minmax(0, 1fr) }
  .explorer .answer { min-height: 6.9em }
}`;
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
    if (!layer.order) {
      if (layer.values) layer.table = halves(layer.values);
      else [layer.w, layer.b] = [halves(layer.weights), halves(layer.bias)];
      layer.sides = new Int8Array(bytes(layer.balance).buffer);
      layer.order = [...layer.sides.keys()].sort((i, j) => layer.sides[j] - layer.sides[i]);
    }
  return network;
}

/** A network whose activations are listed, for the first picture of each digit. */
const listed = (network) => Boolean(network.layers[0].values);

/** Activations of every layer, after its nonlinearity, for a pair of digits: {pixels: 784 numbers of 0 to 255, label}. */
export function activations(network, [left, right]) {
  const { layers } = decoded(network);
  if (listed(network)) {
    const pair = 10 * left.label + right.label;
    return layers.map(({ units, table }) => table.slice(pair * units, (pair + 1) * units));
  }
  let x = Float32Array.from([...left.pixels, ...right.pixels], (value) => value / 255);
  return layers.map(({ units, w, b, relu }) => {
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
  canvas.height = 42; // rows of 13, a line between them
  const picture = context.createImageData(units, 42), rows = [before, after, after.map((a, u) => a - before[u])];
  const most = Math.max(1e-9, ...rows.flatMap((row) => [...row].map(Math.abs)));
  rows.forEach((row, r) => order.forEach((u, column) => {
    const lean = sides[u] / 127, to = lean > 0 ? LEFT : RIGHT, colour = NEITHER.map((n, c) => n + Math.abs(lean) * (to[c] - n));
    const pixel = [...colour, 255 * Math.sqrt(Math.abs(row[u]) / most)];
    for (let y = 14 * r; y < 14 * r + 13; y++) picture.data.set(pixel, 4 * (y * units + column));
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
  const picture = (row) => ({ pixels: pixels.slice(784 * row, 784 * row + 784), label: labels[row] });
  const first = (digit) => picture(labels.indexOf(digit));
  const other = (digit) => {
    const rows = [...labels.keys()].filter((row) => labels[row] !== digit);
    return picture(rows[Math.floor(Math.random() * rows.length)]);
  };
  let before = [first(2), first(7)], now = [first(2), first(4)]; // the first exchange: a 4 for the 7
  let network, strips;
  element("style", root, { textContent: STYLE });
  const box = element("div", root, { className: "explorer", role: "group", ariaLabel: "Explorer: exchange a digit, watch the units" });

  const choice = element("p", box);
  element("label", choice, { textContent: "Network " }).append(element("select", choice, { className: "network" }));
  const select = box.querySelector("select");
  data.networks.forEach((network, i) => element("option", select, { value: i, textContent: network.name }));
  select.onchange = () => choose();

  const board = element("div", box, { className: "board" }), row = element("div", board, { className: "pair" });
  const fields = sides.map((side, s) => {
    const field = element("fieldset", row);
    element("legend", field, { textContent: `${side} digit`, className: side });
    const canvas = element("canvas", field, { className: "digit", role: "img" });
    const buttons = element("p", field);
    element("button", buttons, { type: "button", textContent: "exchange", ariaLabel: `exchange the ${side} digit` }).onclick = () =>
      set(s, other(now[s].label));
    const more = element("p", field), pick = element("select", more, { ariaLabel: `${side} digit: choose` });
    element("option", pick, { value: "", textContent: "choose" });
    for (let digit = 0; digit < 10; digit++) element("option", pick, { value: digit, textContent: digit });
    pick.onchange = () => {
      if (pick.value !== "") set(s, first(Number(pick.value)));
      pick.value = "";
    };
    const blank = () => ({ pixels: new Uint8Array(784), label: null });
    const clear = element("button", more, { type: "button", textContent: "clear", ariaLabel: `clear the ${side} digit, to draw one` });
    clear.onclick = () => set(s, blank());
    canvas.onpointerdown = (event) => {
      if (listed(network)) return;
      canvas.setPointerCapture(event.pointerId);
      set(s, now[s].label === null ? now[s] : blank());
      canvas.onpointermove(event);
    };
    canvas.onpointermove = (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      draw(now[s].pixels, canvas, event);
      update();
    };
    return { canvas, clear };
  });
  const layers = element("div", board);
  const answer = element("div", box, { className: "answer", ariaLive: "polite" });
  const said = [0, 1, 2, 3, 4].map(() => element("p", answer));
  element("p", box, {
    className: "key",
    innerHTML: `Each column is a unit: the stronger its colour, the more active it is, or the more it changes. Units are in the order of the
      digit that they serve: <b class="left">left</b> first, then both (grey), then <b class="right">right</b>. Selectivity is 1 if every
      unit that counts serves one digit alone, 0 if all serve both alike. Draw in a picture to make a digit of your own, where
      “clear” can be pressed.`,
  });

  function set(side, digit) {
    before = now.map((one) => ({ ...one, pixels: one.pixels.slice() }));
    now[side] = digit;
    update();
  }

  /** Another network: its strips are made, once, so that nothing moves while digits are exchanged. */
  function choose() {
    network = decoded(data.networks[select.value]);
    if (listed(network)) for (const pair of [before, now]) pair.forEach((one, s) => (pair[s] = first(one.label ?? 0)));
    fields.forEach(({ canvas, clear }) => {
      clear.disabled = listed(network);
      canvas.style.cursor = listed(network) ? "default" : "";
    });
    layers.replaceChildren();
    strips = network.layers.slice(0, -1).map(({ name, units, selectivity }) => {
      const strip = element("div", layers, { className: "strip" }), head = element("h3", strip, { textContent: name });
      element("i", head, { textContent: `, ${units} units` + (selectivity === null ? "" : `, selectivity ${selectivity.toFixed(2)}`) });
      for (const text of ROWS) element("span", strip, { textContent: text });
      return element("canvas", strip, { className: "units", role: "img", ariaLabel: `units of ${name}: ${ROWS.join(", ")}` });
    });
    update();
  }

  function update() {
    if (listed(network)) now = now.map((one) => first(one.label));
    const seen = [before, now].map((pair) => activations(network, pair));
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
      return `Of ${all} units of the ${side} digit, ${moved} moved.`;
    });
    fields.forEach(({ canvas }, s) => {
      show(canvas, now[s].pixels);
      canvas.ariaLabel = `${sides[s]} digit: ${now[s].label ?? "drawn by you"}`;
    });
    const difference = score(...seen);
    [
      `Before: ${words(before)}; answer ${out[0]}${total(before)}.`,
      `After: ${words(now)}; answer ${out[1]}${total(now)}.`,
      ...counts,
      `Original score of this exchange: ${Number.isNaN(difference) ? "none, the network is silent" : difference.toFixed(2)}.`,
    ].forEach((text, i) => (said[i].textContent = text));
    strips.forEach((canvas, k) => paint(canvas, network.layers[k], seen[0][k], seen[1][k]));
  }
  choose();
  return {
    activations: (n, left, right) => activations(data.networks[n], [left, right].map(picture)).map((a) => [...a]),
    exchange: (side, digit) => set(side, first(digit)),
  };
}

export default { render: ({ model, el }) => void mount(el, model.get("data")) };
