"use strict";
// The library's counter-based noise and its closed form, in the page: Philox4x32-10 and Box-Muller as in
// sfumato/diffusion/noise.py, rounded to float32 where torch rounds.
(() => {
  const S = Sfumato, round = Math.fround, STEP = 2 ** -32, TURN = round(STEP * 2 * Math.PI);

  /** The high and the low word of a product of two 32-bit words. */
  function product(a, b) {
    const al = a & 0xffff, ah = a >>> 16, bl = b & 0xffff, bh = b >>> 16;
    const low = al * bl, middle = ah * bl + Math.floor(low / 65536);
    const cross = al * bh + (middle % 65536);
    return [ah * bh + Math.floor(middle / 65536) + Math.floor(cross / 65536), Math.imul(a, b) >>> 0];
  }

  /** Philox4x32-10 of a counter and a key (Salmon et al. 2011). */
  S.philox = (counter, key) => {
    let [c0, c1, c2, c3] = counter, [k0, k1] = key;
    for (let turn = 0; turn < 10; turn++) {
      const [high0, low0] = product(c0, 0xd2511f53), [high2, low2] = product(c2, 0xcd9e8d57);
      c0 = (high2 ^ c1 ^ k0) >>> 0;
      c2 = (high0 ^ c3 ^ k1) >>> 0;
      c1 = low2;
      c3 = low0;
      k0 = (k0 + 0x9e3779b9) >>> 0;
      k1 = (k1 + 0xbb67ae85) >>> 0;
    }
    return [c0, c1, c2, c3];
  };

  /** Standard normal numbers: purpose 0 is the start of a sample, index the image, step the time step. */
  S.normals = (count, index, { purpose = 0, step = 0, seed = S.shared.seed } = {}) => {
    const out = new Float32Array(count), tail = ((purpose << 24) | Math.floor(index / 2 ** 32)) >>> 0;
    for (let block = 0; block * 4 < count; block++) {
      const words = S.philox([block, index >>> 0, step, tail], seed);
      for (let pair = 0; pair < 2; pair++) {
        const radius = round(Math.sqrt(round(-2 * round(Math.log(round(round(round(words[2 * pair]) + 0.5) * STEP))))));
        const angle = round(round(round(words[2 * pair + 1]) + 0.5) * TURN);
        const at = 4 * block + 2 * pair;
        if (at < count) out[at] = round(radius * round(Math.cos(angle)));
        if (at + 1 < count) out[at + 1] = round(radius * round(Math.sin(angle)));
      }
    }
    return out;
  };

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
