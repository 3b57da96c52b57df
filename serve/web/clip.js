/** A clip that was chosen: what its container says, what the service would refuse, and single frames to look at. */
import { Problem } from "/web/api.js";
import { outline } from "/web/container.js";
import { before, Poster } from "/web/poster.js";

/** The service counts a frame that is half a millisecond early as there, since files and players round. */
const ROUNDING = 0.0005;
const ENDINGS = /\.(mp4|m4v|mov|webm|mkv)$/i;

/** @typedef {{max_bytes: number, max_pixels: number, max_frames: number, max_seconds: number, max_fps: number,
 *   codecs: string[], containers: string[]}} Limits */

/** Some systems don't know what a .mkv is, so a name will do. @param {Blob} file */
export const isClip = (file) => file.type.startsWith("video/") || (!file.type && ENDINGS.test(/** @type {File} */ (file).name || ""));

/** How many of sorted times lie in a part. @param {Float64Array} times @param {number} start @param {number} end */
export const framesIn = (times, start, end) => before(times, end - ROUNDING + 1e-6) - (start > 0 ? before(times, start - ROUNDING - 1e-6) : 0);

export class Clip {
  /** Read what there is to know. Throws a Problem for what the service would refuse. @param {Blob} file @param {Limits} limits */
  static async open(file, limits) {
    if (file.size > limits.max_bytes) {
      throw tooLarge(`it has more than ${Math.floor(limits.max_bytes / 2 ** 20)} MB.`);
    }
    const found = await outline(file);
    if (!limits.containers.includes(found.container) || !limits.codecs.includes(found.codec)) {
      throw new Problem(415, { code: "unsupported", part: "target" });
    }
    if (found.width * found.height > limits.max_pixels) {
      throw tooLarge(`its frames, ${found.width} × ${found.height}, have too many pixels.`);
    }
    // The same slack as the service's, for files whose times are rounded.
    if (crowd(found.times) > limits.max_fps * 1.1 + 1) throw tooLarge(`it has more than ${limits.max_fps} frames a second.`);
    return new Clip(file, found);
  }

  /** @param {Blob} file @param {import("/web/container.js").Outline} found */
  constructor(file, found) {
    this.width = found.width;
    this.height = found.height;
    this.times = found.times;
    this.length = found.length;
    this.url = URL.createObjectURL(file);
    this.poster = new Poster(this.url, this.times);
  }

  /** How many frames there are from `start` up to `end`. @param {number} start @param {number} end */
  frames(start, end) { return framesIn(this.times, start, end < this.length ? end : Infinity); }

  /** The upright frame that is shown at a moment, as a JPEG, and when it begins; null when this browser can't show the
   * clip, undefined when another frame was asked for meanwhile.
   * @param {number} at @returns {Promise<import("/web/poster.js").Still | null | undefined>} */
  async still(at) { return this.poster.at(at).then((shown) => shown ?? undefined, () => null); }

  close() {
    this.poster.close();
    URL.revokeObjectURL(this.url);
  }
}

/** The most frames in any second. @param {Float64Array} times */
const crowd = (times) => times.reduce((most, time, index) => Math.max(most, before(times, time + 1 - 1e-6) - index), 0);

/** @param {string} detail */
const tooLarge = (detail) => new Problem(413, { code: "too_large", title: "The clip is too large", detail, part: "target" });
