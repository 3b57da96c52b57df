/** The state of the line at the top of the page, for whoever looks, before anybody signs in. */
import { byId, duration, say } from "/web/page.js";

/** Returns what looks again at once.
 * @param {any} api @param {string} path @param {() => string} kind which line is of interest now */
export function watchQueue(api, path, kind) {
  const dot = byId("queue");
  const look = async () => {
    try {
      const lines = await api.open(path);
      const line = lines[kind()] || lines.image;
      dot.className = `pulse ${line.workers ? "open" : "closed"}`;
      const gpus = line.workers === 1 ? "1 GPU process ready" : `${line.workers} GPU processes ready`;
      const wait = line.eta && line.eta.p90 >= 1.5 ? `about ${duration(line.eta.p90)} wait` : "no wait";
      say("queue", line.workers ? `${gpus} · ${line.waiting} in line · ${wait}` : "Closed: no GPU is ready right now");
    } catch {
      dot.className = "pulse closed";
      say("queue", "The service can't be reached right now");
    }
  };
  look();
  setInterval(() => { if (!document.hidden) look(); }, 5000);
  return look;
}
