"use strict";
// The library's counter-based noise: Philox4x32-10 and Box-Muller as in sfumato/diffusion/noise.py, rounded to float32
// where torch rounds. Pages that make images put it before their own scripts.
const RANDOM = (() => {
  const round = Math.fround, STEP = 2 ** -32, TURN = round(STEP * 2 * Math.PI);

  /** The high and the low word of a product of two 32-bit words. */
  function product(a, b) {
    const al = a & 0xffff, ah = a >>> 16, bl = b & 0xffff, bh = b >>> 16;
    const low = al * bl, middle = ah * bl + Math.floor(low / 65536);
    const cross = al * bh + (middle % 65536);
    return [ah * bh + Math.floor(middle / 65536) + Math.floor(cross / 65536), Math.imul(a, b) >>> 0];
  }

  /** Philox4x32-10 of a counter and a key (Salmon et al. 2011). */
  function philox(counter, key) {
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
  }

  /** Standard normal numbers, Float32Array. The seed is [low word, high word]; purpose 0 is the start of a sample, 1 a
      sampler's step; index is the image, step the time step. */
  function normals(count, seed, purpose, index, step) {
    const out = new Float32Array(count), tail = ((purpose << 24) | Math.floor(index / 2 ** 32)) >>> 0;
    for (let block = 0; block * 4 < count; block++) {
      const words = philox([block, index >>> 0, step, tail], seed);
      for (let pair = 0; pair < 2; pair++) {
        const radius = round(Math.sqrt(round(-2 * round(Math.log(round(round(round(words[2 * pair]) + 0.5) * STEP))))));
        const angle = round(round(round(words[2 * pair + 1]) + 0.5) * TURN);
        const at = 4 * block + 2 * pair;
        if (at < count) out[at] = round(radius * round(Math.cos(angle)));
        if (at + 1 < count) out[at + 1] = round(radius * round(Math.sin(angle)));
      }
    }
    return out;
  }

  return { philox, normals };
})();
