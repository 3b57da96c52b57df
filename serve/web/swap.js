/** One swap from the place in line to the picture. Knows nothing of the page: it tells a listener what happens. */
import { ENDED, Problem } from "/web/api.js";

/** Problems after which the place is still ours and the next grant will do. */
const STILL_OURS = new Set(["grant_expired", "grant_used", "incomplete", "lost_turn", "internal", "room_unavailable", "unavailable"]);

/** Take a place. @param {any} api @param {any} job */
export async function join(api, job) {
  const body = {
    kind: "image", bytes: job.source.size + job.target.size, width: job.width, height: job.height, consent: job.consent,
  };
  const answer = await api.repeat("/v1/tickets", {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": job.key },
    body: JSON.stringify(body),
  });
  return answer.json();
}

/** Follow the ticket of a job to its result. Returns {blob, faces}; throws a Problem when it ends otherwise.
 * @param {any} api @param {any} job @param {(what: string, value: any) => void} tell @param {AbortSignal} signal */
export async function follow(api, job, tell, signal) {
  const events = api.events(job.ticket, signal);
  let upload = null;
  let used = "";
  for await (const ticket of events) {
    tell("ticket", ticket);
    if (ticket.state === "granted" && ticket.grant !== used) {
      used = ticket.grant;
      upload = api.upload(ticket.links.swap, ticket.grant, form(job), (/** @type {number} */ share) => tell("upload", share), signal)
        .then((/** @type {any} */ result) => ({ result }), (/** @type {any} */ error) => ({ error }));
    }
    if (upload && (ticket.state === "parked" || ticket.state === "waiting")) upload = null;
    if (ENDED.has(ticket.state)) {
      const ended = upload && await upload;
      if (ended?.result) return ended.result;
      if (ended?.error instanceof Problem && !STILL_OURS.has(ended.error.code)) throw ended.error;
      throw new Problem(410, ticket.problem || { code: ticket.state, title: `The ticket was ${ticket.state}` });
    }
  }
  throw new DOMException("canceled", "AbortError");
}

/** @param {any} job */
function form(job) {
  const data = new FormData();
  data.append("faces", job.faces);
  if (job.sourceFace) data.append("source_face", job.sourceFace);
  data.append("source", job.source, "source");
  data.append("target", job.target, "target");
  return data;
}
