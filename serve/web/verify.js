/** What the page about the promise asks for: the last report, as /v1/verify tells it, and the engines that are offered here
 * with the files that they are made of, as /v1/models does. */
import { byId, say } from "/web/page.js";

const COLUMNS = ["File", "What it does", "SHA-256", "Licence"];
const FOUND = ["What was tried", "Kind", "Engine", "Remnants, about bytes", "Files on a disk"];

/** @param {string} tag @param {string} text @param {Record<string, string>} attributes */
const made = (tag, text = "", attributes = {}) => {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

/** @param {string} tag @param {Element[]} inside @param {Record<string, string>} attributes */
const around = (tag, inside, attributes = {}) => {
  const element = made(tag, "", attributes);
  element.append(...inside);
  return element;
};

/** @param {any} model */
const row = (model) => {
  const bytes = model.bytes === null ? "size not published" : `${model.bytes.toLocaleString("en")} bytes`;
  const when = model.required ? "always used" : "used where the operator has it";
  const file = around("th", [made("span", model.file), made("small", `${model.role}; ${bytes}; ${when}`)], { scope: "row" });
  const use = around("td", [
    made("span", model.use),
    made("small", `From ${model.repository}, ${model.revision}`),
  ]);
  if (model.stand_in) use.append(made("small", "Made for tests: what comes of it means nothing."));
  const hash = model.sha256 === null
    ? made("td", "Not published: the operator records the hash of the file that they have looked at.")
    : around("td", [made("code", model.sha256)]);
  const licence = around("td", [
    made("span", model.licence.title),
    made("small", model.licence.commercial ? "Does not forbid commercial use." : "Not for commerce; loaded only when the operator has accepted it by name."),
  ]);
  return around("tr", [file, use, hash, licence]);
};

/** @param {any} engine */
const section = (engine) => {
  const head = [made("h3", engine.label), made("p", `Licence: ${engine.licence}`, { class: "quiet" })];
  if (engine.models.length === 0) return around("section", [...head, made("p", "This engine uses no weights.")]);
  const columns = around("tr", COLUMNS.map((text) => made("th", text, { scope: "col" })));
  const table = around("table", [
    made("caption", `Files of ${engine.name}`),
    around("thead", [columns]),
    around("tbody", engine.models.map(row)),
  ]);
  const scroll = around("div", [table], { class: "scroll", role: "region", "aria-label": `Files of ${engine.name}`, tabindex: "0" });
  return around("section", [...head, scroll]);
};

/** Whole days, hours or minutes, cut. @param {number} seconds */
const age = (seconds) => {
  for (const [name, size] of /** @type {[string, number][]} */ ([["day", 86400], ["hour", 3600], ["minute", 60]])) {
    const count = Math.floor(seconds / size);
    if (count) return `${count} ${name}${count > 1 ? "s" : ""} ago`;
  }
  return "less than a minute ago";
};

/** @param {any} one */
const name = (one) => {
  const head = made("th", one.name, { scope: "row" });
  if (one.problem !== null) head.append(made("small", `Proves nothing: ${one.problem}`));
  return head;
};

/** @param {any} report */
const verdict = (report) => {
  if (report.passed) return "Passed: nothing was found.";
  const found = report.scenarios.some((/** @type {any} */ one) => one.remnants || one.writes);
  return found ? "Failed: something was found." : "Failed: nothing was found, but not all that was tried proves something.";
};

/** @param {any} report */
const table = (report) => {
  const cells = (/** @type {any} */ one) => [one.kind, one.engine, String(one.remnants), String(one.writes)];
  const rows = report.scenarios.map((/** @type {any} */ one) =>
    around("tr", [name(one), ...cells(one).map((text) => made("td", text))]));
  const columns = around("tr", FOUND.map((text) => made("th", text, { scope: "col" })));
  const whole = around("table", [made("caption", "What was tried, and what was found"), around("thead", [columns]), around("tbody", rows)]);
  return around("div", [whole], { class: "scroll", role: "region", "aria-label": "What was tried, and what was found", tabindex: "0" });
};

try {
  const answer = await fetch("/v1/verify");
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const { report, report_status: status } = await answer.json();
  if (status === "none") say("report-status", "The operator has mounted no report. Nothing is known of a search of this service.");
  else if (status === "unreadable") say("report-status", "There is a report, but it is not in order and is not shown. Treat this as: nothing is known.");
  else {
    const other = report.same_version ? "" : ` It was made of version ${report.version}, not of the one that runs here.`;
    say("report-status", `${verdict(report)} Finished ${age(report.age_seconds)}, on ${report.finished}.${other}`);
    byId("report").replaceChildren(table(report));
  }
} catch {
  say("report-status", "The report can't be read now. It is at /v1/verify.");
}

try {
  const answer = await fetch("/v1/models");
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const offered = (await answer.json()).engines.filter((/** @type {any} */ engine) => engine.offered);
  byId("models").replaceChildren(...offered.map(section));
  say("models-status", offered.length === 1 ? "One engine is offered here." : `${offered.length} engines are offered here.`);
} catch {
  say("models-status", "The list can't be read now. It is at /v1/models.");
}
document.documentElement.dataset.ready = "yes";
