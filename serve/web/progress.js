/** What is said to somebody who waits: the place in line, the bar, the frames that are done. */
import { byId, duration, range, say } from "/web/page.js";

const STAGES = ["decode", "detect", "swap", "encode"];
/** Seconds of work from which on the pace is told, and after which it is old. */
const [YOUNG, OLD] = [2, 10];

/** How fast the frames come, and what that says about the rest. */
export class Pace {
  constructor() {
    /** @type {{time: number, done: number}[]} */
    this.seen = [];
  }

  /** Seconds that are left; null as long as nobody can know. @param {number} time @param {number} done @param {number} total */
  left(time, done, total) {
    const last = this.seen.at(-1);
    if (last && done < last.done) this.seen = [];
    if (done && done !== this.seen.at(-1)?.done) this.seen.push({ time, done });
    while (this.seen.length > 2 && time - this.seen[1].time > OLD) this.seen.shift();
    const first = this.seen[0];
    if (!first || time - first.time < YOUNG || done <= first.done) return null;
    return ((total - done) * (time - first.time)) / (done - first.done);
  }
}

export class Progress {
  /** @param {string} kind */
  constructor(kind) {
    this.kind = kind;
    this.promised = 0;
    this.pace = new Pace();
    this.bar = /** @type {HTMLProgressElement} */ (byId("progress"));
    this.bar.removeAttribute("value");
    this.say("Taking a place in line …");
  }

  /** @param {string} place @param {string} [more] */
  say(place, more = "") {
    say("place", place);
    say("eta", more);
  }

  /** The upload of a picture. @param {number} share */
  upload(share) {
    this.bar.value = share * 0.4;
    this.say(share < 1 ? "Your turn: uploading" : "Swapping");
  }

  /** @param {any} ticket */
  ticket(ticket) {
    if (ticket.state === "waiting") {
      this.bar.removeAttribute("value");
      const place = ticket.position === 1 ? "You are next" : `Place ${ticket.position} in line`;
      this.say(place, ticket.eta ? this.estimate(ticket.eta) : "No GPU is ready at the moment. Your place is kept.");
    } else if (ticket.state === "parked") {
      this.say("Your place is kept", "The connection was interrupted. We go on where we were.");
    } else if (ticket.state === "running") {
      if (this.kind === "video") this.clip(ticket.progress); else this.picture(ticket.progress);
    }
  }

  /** @param {{stage: string} | null} progress */
  picture(progress) {
    this.bar.value = 0.4 + 0.15 * Math.max(0, progress ? STAGES.indexOf(progress.stage) : 0);
    this.say("Swapping");
  }

  /** @param {{stage: string, done: number, total: number} | null} progress */
  clip(progress) {
    const { stage, done, total } = progress || { stage: "upload", done: 0, total: 0 };
    const share = total ? done / total : 0;
    if (stage === "upload") {
      this.pace = new Pace();
      this.bar.value = 0.15 * share;
      this.say("Uploading", `${Math.round(100 * share)} %`);
    } else if (stage === "swap") {
      const left = this.pace.left(performance.now() / 1000, done, total);
      this.bar.value = 0.2 + 0.8 * share;
      // What is read aloud stays the same; the count below it is for the eye.
      this.say("Swapping", `Frame ${done} of ${total}.${left === null || done === total ? "" : ` About ${duration(left)} left.`}`);
    } else {
      this.bar.value = stage === "detect" ? 0.19 : 0.17;
      this.say("Looking at the clip");
    }
  }

  /** The estimate, honest about getting worse. @param {{p50: number, p90: number}} eta */
  estimate(eta) {
    const end = Date.now() / 1000 + eta.p90;
    const later = this.promised && end > this.promised + Math.max(3, 0.2 * eta.p90);
    if (!this.promised || end < this.promised) this.promised = end;
    if (!later) return `Your turn in ${range(eta)}.`;
    return `Busier than expected: your turn in ${range(eta)}.`;
  }
}
