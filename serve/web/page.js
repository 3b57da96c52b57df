/** Finding and showing things on the page. Text is set as text: nothing here, or anywhere, parses HTML. */

/** @param {string} id */
export const byId = (id) => {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found;
};

/** @param {string} id @param {boolean} shown */
export const show = (id, shown) => { byId(id).hidden = !shown; };

/** @param {string} id @param {string} text */
export const say = (id, text) => { if (byId(id).textContent !== text) byId(id).textContent = text; };

/** Seconds as people say them. @param {number} seconds */
export const duration = (seconds) => {
  if (seconds < 1.5) return "a second";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return `${Math.round(seconds / 60)} min`;
};

/** A range of seconds. @param {{p50: number, p90: number}} eta */
export const range = (eta) => {
  const [low, high] = [duration(eta.p50), duration(eta.p90)];
  return low === high ? `about ${high}` : `${low} to ${high}`;
};
