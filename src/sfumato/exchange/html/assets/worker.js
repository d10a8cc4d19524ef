"use strict";
/* The runtime and the samplers (the noise is RANDOM, of report/assets/random.js); formulae and names are those of sfumato.diffusion.

   A level is [t, alpha, sigma, logsnr, a, b, c, d] with x_0 = a x_t + b output, eps = c x_t + d output. */

const f = Math.fround;
const PRIOR = 0, STEP = 1;              // purposes of random numbers
const AT_ONCE = 4;                      // images in one run of the network
const MOST_FRAMES = 60;
let plan, levels, session, ort, stopped = false;

function noise(task, purpose, step) {
  const size = task.size, out = new Float32Array(task.num * size);
  for (let i = 0; i < task.num; i++) out.set(RANDOM.normals(size, task.seed, purpose, i, step), i * size);
  return out;
}

/* ---- the network: x_t and a level to x_0 and eps ---- */

async function network(task, x, level, given) {
  const [channels, ...sides] = plan.shape, size = task.size, outputs = plan.outputs;
  const out = new Float32Array(task.num * size), fraction = outputs > channels ? new Float32Array(out.length) : null;
  for (let first = 0; first < task.num; first += AT_ONCE) {
    const num = Math.min(AT_ONCE, task.num - first);
    const feeds = {
      x: new ort.Tensor("float32", x.slice(first * size, (first + num) * size), [num, channels, ...sides]),
      time: new ort.Tensor("float32", new Float32Array(num).fill(level[0] * plan.chain - 1), [num]),
    };
    if (plan.attributes.length) {
      const width = plan.attributes.length, rows = task.conditions.slice(first, first + num).flat();
      const table = given ? Float32Array.from(rows) : new Float32Array(rows.length).fill(NaN);
      feeds.condition = new ort.Tensor("float32", table, [num, width]);
    }
    const result = (await session.run(feeds)).output, data = result.data;
    for (let i = 0; i < num; i++) {
      const from = i * size * (outputs / channels);
      out.set(data.subarray(from, from + size), (first + i) * size);
      if (fraction) fraction.set(data.subarray(from + size, from + 2 * size), (first + i) * size);
    }
    result.dispose();
  }
  const [, , , , a, b, c, d] = level, x0 = new Float32Array(out.length), eps = new Float32Array(out.length);
  for (let i = 0; i < out.length; i++) {
    x0[i] = a * x[i] + b * out[i];
    eps[i] = c * x[i] + d * out[i];
    if (fraction) fraction[i] = (fraction[i] + 1) / 2;
  }
  return { x0, eps, fraction };
}

/* Guided (classifier-free), then clipped to [-1, 1], with the eps that explains x_t. */
async function predict(task, x, level) {
  const w = task.guidance;
  const result = await network(task, x, level, w !== 0);
  if (w !== 0 && w !== 1) {
    const without = await network(task, x, level, false);
    for (let i = 0; i < x.length; i++) result.x0[i] = without.x0[i] + w * (result.x0[i] - without.x0[i]);
  }
  const [, alpha, sigma] = level;
  for (let i = 0; i < x.length; i++) {
    result.x0[i] = Math.max(-1, Math.min(1, result.x0[i]));
    result.eps[i] = (x[i] - alpha * result.x0[i]) / sigma;
  }
  return result;
}

/* ---- the samplers: one step from level t to level s ---- */

const lambda = (level) => level[3] / 2;
const isPast = (lambdaT) => (past) => -Infinity < past.lambda && past.lambda < lambdaT;

function mix(x, ...terms) {
  const out = new Float32Array(x.length);
  for (const [weight, values] of terms) {
    if (weight !== 0) for (let i = 0; i < out.length; i++) out[i] += weight * values[i];
  }
  return out;
}

/* The posterior q(x_s | x_t, x_0): N(a x_t + b x_0, small), and the variance of the forward step, large. */
function posterior(s, t) {
  const drop = -Math.expm1(t[3] - s[3]);
  return {
    a: t[1] / s[1] * (s[2] / t[2]) ** 2, b: s[1] * drop, small: s[2] ** 2 * drop, large: t[2] ** 2 * drop,
  };
}

function reverse(task, state, prediction, s, t, rule) {
  const { a, b, small, large } = posterior(s, t), x = mix(state.x, [a, state.x], [b, prediction.x0]);
  if (s[0] === 0) return x;
  const z = noise(task, STEP, state.step);
  for (let i = 0; i < x.length; i++) {
    const variance = rule === "small" ? small : rule !== "learned" ? large
      : Math.exp(Math.log(small) + prediction.fraction[i] * (Math.log(large) - Math.log(small)));
    x[i] += Math.sqrt(variance) * z[i];
  }
  return x;
}

function middle(h, history) {
  const [now, before] = history, weight = h / (2 * (now.lambda - before.lambda));
  return mix(now.x0, [1 + weight, now.x0], [-weight, before.x0]);
}

const rho = (s, t) => s[2] - s[1] * t[2] / t[1];

function correctable(s, t) {
  if (s[2] === 0) return false;
  const short = 2 * Math.sin((Math.atan2(t[2], t[1]) - Math.atan2(s[2], s[1])) / 2) ** 2;
  const moved = rho(s, t) / 2 * (s[2] * (1 - short) - t[2]);
  return Math.abs(moved - short) < Math.max(short, Math.min(2 * short, 0.1));
}

const METHODS = {
  async ddpm(task, state, s, t) {
    return { x: reverse(task, state, await predict(task, state.x, t), s, t, plan.variance) };
  },

  async ddim(task, state, s, t) {
    const { x0, eps } = await predict(task, state.x, t);
    return { x: mix(x0, [s[1], x0], [s[2], eps]) };
  },

  async heun(task, state, s, t) {
    const { x0, eps } = await predict(task, state.x, t), x = mix(x0, [s[1], x0], [s[2], eps]);
    if (!correctable(s, t)) return { x };
    const ahead = (await predict(task, x, s)).eps, half = rho(s, t) / 2;
    return { x: mix(x, [1, x], [half, ahead], [-half, eps]) };
  },

  async "dpmpp-2"(task, state, s, t) {
    const { x0 } = await predict(task, state.x, t), h = lambda(s) - lambda(t);
    const history = [{ lambda: lambda(t), x0 }, ...state.history.filter(isPast(lambda(t)))].slice(0, 2);
    const image = !isFinite(h) || history.length === 1 ? x0 : middle(h, history);
    return { x: mix(x0, [s[2] / t[2], state.x], [-s[1] * Math.expm1(-h), image]), history };
  },

  async "dpmpp-sde"(task, state, s, t) {
    const prediction = await predict(task, state.x, t), x0 = prediction.x0, h = lambda(s) - lambda(t);
    const history = [{ lambda: lambda(t), x0 }, ...state.history.filter(isPast(lambda(t)))].slice(0, 2);
    const image = !isFinite(h) || history.length === 1 ? x0 : middle(h, history);
    return { x: reverse(task, state, { x0: image }, s, t, "small"), history };
  },
};

/* ---- the loop, and what the page asks for ---- */

function bytes(x) {
  const out = new Uint8ClampedArray(x.length);      // rounds half to even, as torch does
  for (let i = 0; i < x.length; i++) out[i] = f(f(x[i] + 1) * 127.5);
  return out;
}

async function draw(task) {
  stopped = false;
  const { method, grid } = plan.samplers[task.sampler], times = levels[grid][task.steps], n = times.length - 1;
  task.size = plan.shape.reduce((a, b) => a * b);
  let state = { x: noise(task, PRIOR, 0), step: 0, history: [] };
  const shown = new Set(Array.from({ length: Math.min(n + 1, MOST_FRAMES) },
    (_, k) => Math.round(k * n / (Math.min(n + 1, MOST_FRAMES) - 1))));
  const show = () => { if (shown.has(state.step)) postMessage({ kind: "frame", step: state.step, steps: n, pixels: bytes(state.x) }); };
  show();
  const start = performance.now();
  for (let k = 0; k < n; k++) {
    const next = await METHODS[method](task, state, times[k + 1], times[k]);
    state = { x: next.x, step: k + 1, history: next.history || [] };
    show();
    await new Promise((resume) => setTimeout(resume));  // let a message in
    if (stopped) return postMessage({ kind: "stopped", step: state.step });
  }
  postMessage({ kind: "done", x: state.x, milliseconds: (performance.now() - start) / n });
}

async function unpacked(text) {
  const packed = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function start(parts) {
  plan = parts.plan;
  levels = parts.levels;
  const runtime = new Blob([await unpacked(parts.runtime)], { type: "text/javascript" });
  ort = await import(URL.createObjectURL(runtime));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await unpacked(parts.wasm);
  session = await ort.InferenceSession.create(await unpacked(parts.model), { executionProviders: ["wasm"] });
  postMessage({ kind: "ready" });
}

if (typeof onmessage !== "undefined") onmessage = async ({ data }) => {
  try {
    if (data.kind === "start") await start(data);
    else if (data.kind === "stop") stopped = true;
    else await draw(data);
  } catch (error) {
    postMessage({ kind: "failed", message: String(error && error.message || error) });
  }
};
