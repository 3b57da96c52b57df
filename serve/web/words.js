/** What went wrong, in a plain sentence, and what to do. */

/** @type {Record<string, [string, string]>} */
const WORDS = {
  no_face: ["No face was found", "Choose a picture or clip where the face is seen from the front, well lit and not covered."],
  many_faces: ["The portrait shows several people", "Choose which face to use, or take a picture with one person."],
  unknown_face: ["A chosen face is no longer there", "Choose the faces again, of a clip perhaps on another frame."],
  unsupported: ["This kind of file can't be read", "Use JPEG, PNG, WebP, AVIF or HEIC; for a clip MP4, MOV, WebM or MKV with H.264, H.265, VP8, VP9 or AV1."],
  undecodable: ["The picture or clip is damaged", "Save it again in another program, or choose another one."],
  content_refused: ["This content isn't swapped here", "Pictures must show adults, and nothing intimate. The check errs towards refusing; if it is wrong, try other pictures. Nothing of these was kept."],
  too_large: ["The picture or clip is too large", "Choose a smaller one, or a shorter part of the clip."],
  larger_than_declared: ["More was sent than you took a place for", "Try again."],
  too_slow: ["The upload took too long", "Try again on a faster connection."],
  slow_reader: ["The result was taken too slowly", "Try again on a faster connection, and keep this page in front."],
  damaged: ["The result arrived damaged", "It isn't what the service sent, so it is not shown. Try again."],
  quota: ["Your fair share is used up for now", "It fills up again by itself."],
  too_many_tickets: ["You already have two places in line", "Let one end, or cancel it."],
  queue_full: ["The line is full", "Come back in a little while."],
  not_marked: ["Results can't be marked right now", "Without its mark a result doesn't leave. Try again later."],
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
  const part = error.part === "source" ? " in the portrait" : error.part === "target" ? " in the photo or clip" : "";
  const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  if (!known) return [error.message || "Something went wrong", `${error.detail || "Please try again."}${wait}`];
  return [known[0] + (error.code === "no_face" ? part : ""), known[1] + wait];
}

/** What the result says of itself. @param {{c2pa: boolean, label: boolean}} marks */
export function marked(marks) {
  const where = [marks.c2pa && "in signed C2PA data inside the file", marks.label && "with the words AI-generated in its corner"];
  const said = where.filter(Boolean).join(" and ");
  return said && `The result says how it was made: ${said}.`;
}
