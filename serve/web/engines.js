/** The same pair by every engine that is offered here, side by side: what has become of the old way, and of the new. */
import { byId, say, show } from "/web/page.js";
import { follow, join } from "/web/swap.js";
import { words } from "/web/words.js";

export class Engines {
  /** @param {any} api @param {{name: string, label: string, licence: string}[]} offered the service's own first */
  constructor(api, offered) {
    this.api = api;
    this.offered = offered;
    /** @type {any} */
    this.job = null;
    /** @type {AbortController | null} */
    this.running = null;
    /** @type {string[]} */
    this.urls = [];
    byId("engines-start").addEventListener("click", () => (this.running ? this.running.abort() : this.compare()));
  }

  /** A picture has been swapped. @param {any} job @param {{blob: Blob}} result */
  offer(job, result) {
    this.clear();
    if (job.kind === "video" || this.offered.length < 2) return;
    this.job = job;
    this.first = result.blob;
    this.draw();
    show("engines", true);
  }

  async compare() {
    const { job } = this;
    this.running = new AbortController();
    this.draw();
    byId("engines-gallery").replaceChildren();
    try {
      for (const engine of this.offered) {
        const blob = engine === this.offered[0] ? this.first : await this.swap(job, engine);
        if (this.job === job) this.add(engine, /** @type {Blob} */ (blob));
      }
      say("engines-status", "The same pair, the same moment: only the engine differs.");
    } catch (error) {
      const { name, code } = /** @type {any} */ (error);
      if (this.job === job) say("engines-status", name === "AbortError" || code === "canceled" ? "Stopped." : words(/** @type {any} */ (error)).join(". "));
    } finally {
      this.running = null;
      this.draw();
    }
  }

  /** A swap of its own, with a place in line of its own. @param {any} job @param {{name: string, label: string}} engine */
  async swap(job, engine) {
    const signal = /** @type {AbortController} */ (this.running).signal;
    const mine = { ...job, key: crypto.randomUUID(), engine: engine.name, ticket: null };
    say("engines-status", `${engine.label} …`);
    mine.ticket = await join(this.api, mine);
    const leave = () => this.api.repeat(mine.ticket.links.cancel, { method: "DELETE" }).catch(() => null);
    signal.addEventListener("abort", leave);
    try {
      const { blob } = await follow(this.api, mine, (what, value) => this.tell(engine, what, value), signal);
      return blob;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  /** @param {{label: string}} engine @param {string} what @param {any} value */
  tell(engine, what, value) {
    const waits = what === "ticket" && value.state === "waiting" && value.position;
    if (waits) say("engines-status", `${engine.label}: ${value.position} in line …`);
    else if (what === "upload") say("engines-status", `${engine.label}: working …`);
  }

  /** @param {{label: string, licence: string}} engine @param {Blob} blob */
  add(engine, blob) {
    const url = URL.createObjectURL(blob);
    this.urls.push(url);
    const [figure, image, caption] = ["figure", "img", "figcaption"].map((tag) => document.createElement(tag));
    /** @type {HTMLImageElement} */ (image).src = url;
    image.setAttribute("alt", `The photo swapped by ${engine.label}`);
    caption.textContent = engine.label;
    const licence = document.createElement("small");
    licence.textContent = engine.licence;
    caption.append(licence);
    figure.append(image, caption);
    byId("engines-gallery").append(figure);
  }

  draw() {
    byId("engines-start").textContent = this.running ? "Stop comparing" : "Compare the engines";
  }

  clear() {
    this.running?.abort();
    this.job = this.first = null;
    show("engines", false);
    say("engines-status", "");
    byId("engines-gallery").replaceChildren();
    for (const url of this.urls) URL.revokeObjectURL(url);
    this.urls = [];
  }
}
