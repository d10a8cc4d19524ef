"use strict";
// The library's counter-based noise (report/assets/random.js) and the noised images' closed form, in the page.
(() => {
  const S = Sfumato, round = Math.fround;

  S.philox = RANDOM.philox;
  /** Standard normal numbers: purpose 0 is the start of a sample, index the image, step the time step. */
  S.normals = (count, index, { purpose = 0, step = 0, seed = S.shared.seed } = {}) =>
    RANDOM.normals(count, seed, purpose, index, step);

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  /** A noise level from its log SNR: alpha = sqrt(abar), sigma = sqrt(1 - abar). */
  S.levelOf = (logsnr) => ({
    logsnr, abar: sigmoid(logsnr), variance: sigmoid(-logsnr), alpha: Math.sqrt(sigmoid(logsnr)),
    sigma: Math.sqrt(sigmoid(-logsnr)),
  });

  S.prepare = () => {
    const shared = S.shared, [channels, height, width] = shared.shape;
    S.size = channels * height * width;
    const first = shared.images.shape[0];
    S.define("t", shared.steps[S.nearest(Array.from(shared.logsnr.data), 0)], (text) => {
      const wanted = Number(text);
      return shared.steps[S.nearest(shared.steps, Number.isFinite(wanted) ? wanted : 0)];
    });
    S.define("image", 0, S.integer(0, first - 1));
    S.define("noise", 0, S.integer(0, 999));
    const bytes = shared.images.data instanceof Uint8Array;
    const kept = new Map(), drawn = new Map();
    /** Image n as pixels in [-1, 1]: byte k is 2 k / 255 - 1. */
    S.image = (n) => {
      if (!kept.has(n)) {
        const row = shared.images.row(n);
        kept.set(n, bytes ? Float32Array.from(row, (v) => round(round(v / 127.5) - 1)) : row);
      }
      return kept.get(n);
    };
    /** The noise of image n; `draw` counts other noise of the same image. */
    S.eps = (n, draw = 0) => {
      const index = n + 1000 * draw;
      if (!drawn.has(index)) {
        if (drawn.size > 40) drawn.clear();
        drawn.set(index, S.normals(S.size, index));
      }
      return drawn.get(index);
    };
    /** The level at step t of the chain, and that one step before. */
    S.level = (t) => S.levelOf(shared.logsnr.data[S.nearest(shared.steps, t)]);
    S.before = (t) => S.levelOf(shared.before.data[S.nearest(shared.steps, t)]);
    /** x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps. */
    S.noised = (n, t, draw = 0) => S.mix(S.image(n), S.eps(n, draw), S.level(t));
  };
  S.mix = (x, eps, level) => {
    const alpha = round(level.alpha), sigma = round(level.sigma), out = new Float32Array(x.length);
    for (let i = 0; i < x.length; i++) out[i] = round(round(alpha * x[i]) + round(sigma * eps[i]));
    return out;
  };
  /** Coefficients of q(x_s | x_t, x_0) = N( a x_t + b x_0, small ), and the step's own variance, large = beta. */
  S.posterior = (before, level) => {
    const drop = -Math.expm1(level.logsnr - before.logsnr), ratio = before.variance / level.variance;
    return {
      a: (level.alpha / before.alpha) * ratio, b: before.alpha * drop,
      small: before.variance * drop, large: level.variance * drop,
    };
  };
})();
