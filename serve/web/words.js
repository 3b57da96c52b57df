/** What went wrong, in a plain sentence, and what to do. */

/** @type {Record<string, [string, string]>} */
const WORDS = {
  no_face: ["No face was found", "Choose a picture where the face is seen from the front, well lit and not covered."],
  many_faces: ["The portrait shows several people", "Choose which face to use, or take a picture with one person."],
  unknown_face: ["A chosen face is no longer there", "Choose the faces again."],
  unsupported: ["This kind of file can't be read", "Use JPEG, PNG, WebP, AVIF or HEIC."],
  undecodable: ["The picture is damaged", "Save it again in another program, or choose another one."],
  too_large: ["The picture is too large", "Choose a smaller one."],
  larger_than_declared: ["The pictures changed while you waited", "Try again."],
  too_slow: ["The upload took too long", "Try again on a faster connection."],
  quota: ["Your fair share is used up for now", "It fills up again by itself."],
  too_many_tickets: ["You already have two places in line", "Let one end, or cancel it."],
  queue_full: ["The line is full", "Come back in a little while."],
  draining: ["The service is restarting", "It will be back in a moment."],
  room_unavailable: ["The line can't be reached", "It will be back in a moment."],
  expired: ["Your turn passed", "Nobody came for it in time. Take a new place."],
  aborted: ["We could not finish your swap", "It was interrupted several times. Please try again."],
  session_expired: ["Your session has ended", "Sign in again."],
  session_revoked: ["Your session has ended", "Sign in again."],
  session_missing: ["You are not signed in", "Sign in and try again."],
  unavailable: ["The service can't be reached", "Check your connection and try again."],
};

/** @param {any} error @returns {[string, string]} */
export function words(error) {
  const known = WORDS[error.code] || (error instanceof TypeError ? WORDS.unavailable : null);
  const part = error.part === "source" ? " in the portrait" : error.part === "target" ? " in the photo" : "";
  const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  if (!known) return [error.message || "Something went wrong", `${error.detail || "Please try again."}${wait}`];
  return [known[0] + (error.code === "no_face" ? part : ""), known[1] + wait];
}
