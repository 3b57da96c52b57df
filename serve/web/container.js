/** What a clip is, told by its container alone. The file is read in slices; no picture of it is decoded. */
import { Problem } from "/web/api.js";

/** What the service calls what mediabunny calls otherwise. */
const CODECS = /** @type {Record<string, string>} */ ({ avc: "h264" });
const CONTAINERS = /** @type {Record<string, string>} */ ({
  MP4: "mp4", "QuickTime File Format": "mov", WebM: "webm", Matroska: "mkv",
});

/** Coded pixels before any rotation; the times of all frames in seconds, sorted; where the last of them ends.
 * @typedef {{width: number, height: number, codec: string, container: string, times: Float64Array, length: number}} Outline */

/** @param {Blob} file @returns {Promise<Outline>} Throws a Problem when it isn't a clip that can be read. */
export async function outline(file) {
  const { Input, BlobSource, EncodedPacketSink, MP4, QTFF, WEBM, MATROSKA } = await import("/web/vendor/mediabunny.js");
  const input = new Input({ source: new BlobSource(file), formats: [MP4, QTFF, WEBM, MATROSKA] });
  try {
    if (!(await input.canRead())) throw refused("unsupported");
    const container = CONTAINERS[(await input.getFormat()).name] || "";
    const track = await input.getPrimaryVideoTrack();
    if (!track) throw refused("unsupported");
    const codec = await track.getCodec() || "";
    const [width, height] = [await track.getCodedWidth(), await track.getCodedHeight()];
    const times = [];
    let length = 0;
    for await (const packet of new EncodedPacketSink(track).packets(undefined, undefined, { metadataOnly: true })) {
      times.push(packet.timestamp);
      length = Math.max(length, packet.timestamp + packet.duration);
    }
    if (!times.length) throw refused("undecodable");
    return { width, height, codec: CODECS[codec] || codec, container, times: Float64Array.from(times).sort(), length };
  } catch (error) {
    throw error instanceof Problem ? error : refused("undecodable");
  } finally {
    input.dispose();
  }
}

/** @param {string} code */
const refused = (code) => new Problem(415, { code, part: "target" });
