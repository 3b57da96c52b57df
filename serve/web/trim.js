/** The controls under a clip: which part is swapped, and which of its frames is looked at. */
import { byId, say, show } from "/web/page.js";

const NAMES = ["start", "end", "at"];

export class Trim {
  /** @param {(change: {looked: boolean}) => void} changed told after every change; `looked`: another frame is wanted. */
  constructor(changed) {
    this.changed = changed;
    this.clip = null;
    this.most = Infinity;
    this.start = this.end = this.at = 0;
    for (const name of NAMES) {
      this.input(name).addEventListener("input", () => this.moved(name));
      this.input(name).addEventListener("change", () => this.changed({ looked: true }));
    }
  }

  /** @param {string} name */
  input(name) { return /** @type {HTMLInputElement} */ (byId(`clip-${name}`)); }

  /** @param {any} clip @param {number} most seconds */
  open(clip, most) {
    this.clip = clip;
    this.most = most;
    this.start = this.at = 0;
    this.end = Math.min(clip.length, most);
    for (const name of NAMES) this.input(name).max = String(Math.ceil(clip.length * 10) / 10);
    show("clip", true);
    this.draw();
  }

  close() {
    this.clip = null;
    show("clip", false);
  }

  /** @param {string} name */
  moved(name) {
    const value = Math.min(Number(this.input(name).value), this.clip.length);
    if (name === "start") {
      this.start = Math.min(value, Math.max(0, this.clip.length - 0.1));
      this.end = Math.min(Math.max(this.end, this.start + 0.1), this.start + this.most, this.clip.length);
    } else if (name === "end") {
      this.end = Math.max(value, 0.1);
      this.start = Math.max(0, Math.min(this.start, this.end - 0.1), this.end - this.most);
    } else {
      this.at = value;
    }
    this.at = Math.min(Math.max(this.at, this.start), Math.max(this.start, this.end - 0.05));
    this.draw();
    this.changed({ looked: false });
  }

  get frames() { return this.clip.frames(this.start, this.end); }

  /** Form fields that say which part; none for the whole clip. */
  get part() {
    return {
      ...(this.start > 0 ? { start: this.start.toFixed(3) } : {}),
      ...(this.end < this.clip.length ? { end: this.end.toFixed(3) } : {}),
    };
  }

  draw() {
    for (const name of NAMES) {
      const seconds = /** @type {any} */ (this)[name];
      this.input(name).value = String(seconds);
      this.input(name).setAttribute("aria-valuetext", `${seconds.toFixed(1)} seconds`);
      say(`clip-${name}-value`, `${seconds.toFixed(1)} s`);
    }
    const part = this.end - this.start;
    const whole = part >= this.clip.length - 0.05;
    const limit = this.clip.length > this.most ? ` At most ${this.most} s can be swapped at once.` : "";
    const length = whole ? `The whole clip, ${part.toFixed(1)} s` : `${part.toFixed(1)} of ${this.clip.length.toFixed(1)} s`;
    say("clip-part", `${length}, ${this.frames} frames.${limit}`);
  }
}
