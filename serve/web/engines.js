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
    const { signal } = this.running = new AbortController();
    this.draw();
    byId("engines-gallery").replaceChildren();
    for (const engine of this.offered) {
      try {
        const blob = engine === this.offered[0] ? this.first : await this.swap(job, engine, signal);
        if (this.job === job) this.add(engine, /** @type {Blob} */ (blob));
      } catch (error) {
        if (signal.aborted) break;
        // One that can't do this pair is an answer too.
        if (this.job === job) this.add(engine, null, words(/** @type {any} */ (error)).join(". "));
      }
    }
    if (this.job === job) say("engines-status", signal.aborted ? "Stopped." : "The same pair, the same moment: only the engine differs.");
    // A later comparison may have begun while this one ended.
    if (this.running?.signal === signal) this.running = null;
    this.draw();
  }

  /** A swap of its own, with a place in line of its own.
   * @param {any} job @param {{name: string, label: string}} engine @param {AbortSignal} signal */
  async swap(job, engine, signal) {
    say("engines-status", `${engine.label} …`);
    const mine = { ...job, key: crypto.randomUUID(), engine: engine.name, ticket: null };
    mine.ticket = await join(this.api, mine);
    const leave = () => this.api.repeat(mine.ticket.links.cancel, { method: "DELETE" }).catch(() => null);
    if (signal.aborted) await leave();
    signal.throwIfAborted();
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

  /** @param {{label: string, licence: string}} engine @param {Blob | null} blob @param {string} [why] there is none */
  add(engine, blob, why) {
    const [figure, caption, note] = ["figure", "figcaption", "small"].map((tag) => document.createElement(tag));
    caption.textContent = engine.label;
    note.textContent = why || engine.licence;
    caption.append(note);
    if (blob) {
      const image = document.createElement("img");
      image.src = URL.createObjectURL(blob);
      image.alt = `The photo swapped by ${engine.label}`;
      this.urls.push(image.src);
      figure.append(image);
    }
    figure.append(caption);
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
