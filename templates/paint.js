// From a raw map to pixels, with the arithmetic of exporter/render: rectify, min-max over the map's own
// range, bilinear with pixel centres aligned, 256 levels, table. Tests hold it to OpenCV's result.
"use strict";
window.exporter = window.exporter || {};
exporter.paint = (() => {
  const bytes = (text) => {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const raw = atob(text);
    const out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out;
  };
  const floats = (text) => new Float32Array(bytes(text).buffer);

  // Where output pixel i reads: cell, next cell and the weight of the next one (cv2.INTER_LINEAR).
  const taps = (from, to) => {
    const cell = new Int32Array(to), next = new Int32Array(to), weight = new Float32Array(to);
    for (let i = 0; i < to; i++) {
      const x = Math.min(Math.max((i + 0.5) * from / to - 0.5, 0), from - 1);
      cell[i] = Math.floor(x);
      next[i] = Math.min(cell[i] + 1, from - 1);
      weight[i] = x - cell[i];
    }
    return { cell, next, weight };
  };
  const kept = new Map();
  const tapsOf = (from, to) => {
    const key = from * 65536 + to;
    if (!kept.has(key)) kept.set(key, taps(from, to));
    return kept.get(key);
  };

  const resize = (values, height, width, outHeight, outWidth) => {
    const across = tapsOf(width, outWidth), down = tapsOf(height, outHeight);
    const wide = new Float32Array(height * outWidth);
    for (let y = 0; y < height; y++) {
      const from = y * width, to = y * outWidth;
      for (let x = 0; x < outWidth; x++) {
        const a = values[from + across.cell[x]], b = values[from + across.next[x]];
        wide[to + x] = a + (b - a) * across.weight[x];
      }
    }
    const out = new Float32Array(outHeight * outWidth);
    for (let y = 0; y < outHeight; y++) {
      const a = down.cell[y] * outWidth, b = down.next[y] * outWidth, w = down.weight[y], to = y * outWidth;
      for (let x = 0; x < outWidth; x++) out[to + x] = wide[a + x] + (wide[b + x] - wide[a + x]) * w;
    }
    return out;
  };

  // The ends of the colour bar in the map's own unit.
  const range = (values, rectify, centred) => {
    let lo = Infinity, hi = -Infinity;
    for (const value of values) {
      const v = rectify && value < 0 ? 0 : value;
      if (v < lo) lo = v;
      if (v > hi) hi = v;
    }
    if (!centred) return [lo, hi];
    const reach = Math.max(-lo, hi);
    return [-reach, reach];
  };

  const normalise = (values, rectify, centred, flat) => {
    const [lo, hi] = range(values, rectify, centred);
    const out = new Float32Array(values.length);
    if (flat || !(hi > lo)) return out.fill(centred ? 0.5 : 0);
    for (let i = 0; i < values.length; i++) {
      const v = rectify && values[i] < 0 ? 0 : values[i];
      out[i] = (v - lo) / (hi - lo);
    }
    return out;
  };

  const hatch = (height, width) => {
    const image = new ImageData(width, height);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i += 4) {
        const grey = (x + y) % 8 < 4 ? 200 : 150;
        image.data[i] = image.data[i + 1] = image.data[i + 2] = grey;
        image.data[i + 3] = 255;
      }
    }
    return image;
  };

  // settings: rectify, colour (name), threshold in [0, 1], fade. Pixels below the threshold are transparent;
  // with fade the others are as opaque as the map is high there.
  // A map that is `scaled` is in [0, 1] already.
  const heat = (map, height, width, settings) => {
    if (map.flags.includes("nan")) return hatch(height, width);
    const centred = settings.colour === "diverging";
    const scaled = map.scaled ? map.values() : normalise(map.values(), settings.rectify && !centred, centred, map.flags.includes("noise"));
    const smooth = resize(scaled, map.height, map.width, height, width);
    const table = exporter.colours[settings.colour];
    const image = new ImageData(width, height);
    const floor = settings.threshold || 0;
    for (let i = 0, j = 0; i < smooth.length; i++, j += 4) {
      const level = Math.floor(smooth[i] * 255 + 0.5) * 3;
      const strength = centred ? Math.abs(smooth[i] - 0.5) * 2 : smooth[i];
      image.data[j] = table[level];
      image.data[j + 1] = table[level + 1];
      image.data[j + 2] = table[level + 2];
      image.data[j + 3] = strength < floor ? 0 : settings.fade ? Math.floor(strength * 255 + 0.5) : 255;
    }
    return image;
  };

  const onto = (canvas, image) => {
    if (canvas.width !== image.width) canvas.width = image.width;
    if (canvas.height !== image.height) canvas.height = image.height;
    canvas.getContext("2d").putImageData(image, 0, 0);
  };
  const draw = (canvas, map, height, width, settings) => onto(canvas, heat(map, height, width, settings));

  // A channel's levels as they are, one canvas pixel a cell; the page enlarges it without smoothing.
  const channel = (canvas, levels, height, width, colour) => {
    const image = new ImageData(width, height), table = exporter.colours[colour];
    for (let i = 0; i < levels.length; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = table[3 * levels[i] + c];
      image.data[4 * i + 3] = 255;
    }
    onto(canvas, image);
  };

  const ramp = (canvas, colour) => {
    const levels = Uint8Array.from({ length: 256 }, (_, i) => i);
    channel(canvas, levels, 1, 256, colour);
  };
  const release = (canvas) => { canvas.width = 0; canvas.height = 0; };
  return { bytes, floats, resize, range, normalise, draw, channel, ramp, release };
})();
