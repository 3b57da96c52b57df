/** The faces of a photo as buttons over it. A face is chosen by its id, which says where it is. */

/** @param {HTMLElement} layer @param {{width: number, height: number, faces: any[]}} found
 * @param {boolean} several @param {Set<string>} chosen @param {() => void} changed */
export function drawFaces(layer, found, several, chosen, changed) {
  layer.replaceChildren();
  found.faces.forEach((face, index) => {
    const [x, y, w, h] = face.box;
    const button = document.createElement("button");
    const label = document.createElement("span");
    button.type = "button";
    const place = { left: x / found.width, top: y / found.height, width: w / found.width, height: h / found.height };
    for (const [side, share] of Object.entries(place)) button.style.setProperty(side, `${share * 100}%`);
    const paint = () => {
      const on = chosen.has(face.id);
      button.setAttribute("aria-pressed", String(on));
      label.textContent = on ? (several ? "changes" : "used") : (several ? "stays" : "not used");
      button.setAttribute("aria-label", `Face ${index + 1} of ${found.faces.length}`);
    };
    button.append(label);
    button.addEventListener("click", () => {
      if (!several) chosen.clear();
      if (chosen.has(face.id)) chosen.delete(face.id); else chosen.add(face.id);
      layer.dispatchEvent(new Event("repaint"));
      changed();
    });
    layer.addEventListener("repaint", paint);
    paint();
    layer.append(button);
  });
}
