/** The same request from one's own code, with what is chosen now. */

/** @param {string} language @param {{bytes: number, width: number, height: number, faces: string}} now */
export function code(language, now) {
  const origin = location.origin;
  if (language === "python") {
    return [
      "from nanoswap.client import Client",
      "",
      `with Client("${origin}", token=TOKEN) as client:`,
      `    result = client.swap("face.jpg", "photo.jpg", faces="${now.faces}", consent=True)`,
      '    result.save("out.jpg")',
    ].join("\n");
  }
  const ticket = JSON.stringify({
    kind: "image", bytes: now.bytes, width: now.width, height: now.height, consent: "likeness-1",
  });
  return [
    "# 1. take a place in line; the answer says when it is your turn (\"grant\") and where to upload (\"links\")",
    `curl ${origin}/v1/tickets -H "Authorization: Bearer $TOKEN" \\`,
    `     -H "Idempotency-Key: $(uuidgen)" --json '${ticket}'`,
    "# 2. follow it until it is granted",
    `curl -N ${origin}/v1/tickets/$ID/events -H "Authorization: Bearer $TOKEN"`,
    "# 3. upload both pictures; the result is the answer",
    `curl ${origin}/image/v1/tickets/$ID/swap -H "Authorization: Bearer $TOKEN" -H "Grant: $GRANT" \\`,
    `     -F source=@face.jpg -F target=@photo.jpg -F faces=${now.faces} -o out.jpg`,
  ].join("\n");
}
