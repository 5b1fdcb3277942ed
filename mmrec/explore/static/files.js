// Files to search by: chosen, dropped or pasted.

import { byId } from "./dom.js";

const BY_ENDING = {
  image: ["jpg", "jpeg", "png", "webp", "gif", "bmp", "avif", "tif", "tiff"],
  audio: ["wav", "flac", "mp3", "ogg", "oga", "opus", "m4a", "aac", "wma", "aiff", "aif"],
  video: ["mp4", "m4v", "webm", "mkv", "mov", "avi", "mpg", "mpeg"],
};

const kept = []; // by number, so that an address can name one; they last as long as the page

/** The kind of a file: "image", "audio" or "video"; null for others. */
export function modalityOf(file) {
  const claimed = file.type.split("/")[0];
  if (claimed in BY_ENDING) return claimed;
  const ending = file.name.split(".").pop().toLowerCase();
  return Object.keys(BY_ENDING).find((modality) => BY_ENDING[modality].includes(ending)) ?? null;
}

/** Keep a file and return its number, or throw one line on why it cannot be used. */
export function keepFile(file, about) {
  const modality = modalityOf(file);
  if (modality === null) throw new Error(`${file.name} is no picture, sound or clip; give one of these.`);
  if (!about.queried_by.includes(modality)) {
    throw new Error(`${file.name} is ${modality}; this model reads ${about.queried_by.join(", ") || "no media"}.`);
  }
  if (about.max_upload_bytes && file.size > about.max_upload_bytes) {
    throw new Error(`${file.name} has ${megabytes(file.size)}; at most ${megabytes(about.max_upload_bytes)} are taken.`);
  }
  return kept.push({ file, modality }) - 1;
}

const megabytes = (bytes) => `${Number((bytes / 1e6).toPrecision(2))} MB`;

export const fileOf = (number) => kept[number] ?? null;

/** Call `take` with a file that is dropped anywhere, chosen, or pasted. */
export function receiveFiles(take) {
  const input = byId("file");
  const drop = byId("drop");
  input.addEventListener("change", () => {
    if (input.files.length) take(input.files[0]);
    input.value = "";
  });
  const carriesFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragover", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    drop.hidden = false;
  });
  addEventListener("dragleave", (event) => { if (event.relatedTarget === null) drop.hidden = true; });
  addEventListener("drop", (event) => {
    drop.hidden = true;
    if (!carriesFile(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (!file) return;
    event.preventDefault();
    take(file);
  });
}
