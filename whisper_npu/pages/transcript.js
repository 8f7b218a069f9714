"use strict";
const player = document.querySelector("audio");
const words = [...document.querySelectorAll(".word")];
const starts = words.map((word) => Number(word.dataset.start));
const segments = [...document.querySelectorAll(".segments > li")];
const search = document.querySelector("input[type=search]");
const follow = document.getElementById("follow");
const choose = document.getElementById("choose");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let now = null; // the word being spoken

function show(element) {
  const behavior = calm.matches ? "auto" : "smooth";
  element.scrollIntoView({ block: "center", behavior });
}

// sound

function playFrom(seconds) {
  player.currentTime = seconds;
  mark();
  player.play().catch(() => { choose.hidden = false; }); // no recording here to play
}

function wordAt(seconds) {
  let low = 0, high = starts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle] <= seconds) low = middle + 1; else high = middle;
  }
  return low ? words[low - 1] : null;
}

function mark() {
  const word = wordAt(player.currentTime);
  if (word === now) return;
  const before = now && now.closest("li");
  if (now) { now.classList.remove("now"); now.removeAttribute("aria-current"); }
  now = word;
  if (!now) return;
  now.classList.add("now");
  now.setAttribute("aria-current", "true");
  if (follow.checked && now.closest("li") !== before) show(now);
}

function track() {
  mark();
  if (!player.paused) requestAnimationFrame(track);
}

player.addEventListener("play", track);
player.addEventListener("seeked", mark);
player.addEventListener("error", () => { choose.hidden = false; });
choose.querySelector("input").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) player.src = URL.createObjectURL(file);
});
document.querySelector("main").addEventListener("click", (event) => {
  const place = event.target.closest("[data-start]");
  if (place && getSelection().isCollapsed) playFrom(Number(place.dataset.start));
});

// search: ranges over the text as it stands, across words

let ranges = [], current = -1;

function rangesOf(paragraph, pattern) {
  const walker = document.createTreeWalker(paragraph, NodeFilter.SHOW_TEXT);
  const nodes = [];
  for (let node, offset = 0; (node = walker.nextNode()); offset += node.length) nodes.push({ node, offset });
  const place = (range, set, at) => {
    const { node, offset } = nodes.findLast((part) => part.offset <= at);
    range[set](node, Math.min(at - offset, node.length));
  };
  return [...paragraph.textContent.matchAll(pattern)].map((match) => {
    const range = document.createRange();
    place(range, "setStart", match.index);
    place(range, "setEnd", match.index + match[0].length);
    return range;
  });
}

function find() {
  const literal = search.value.trim().replace(/[\\^$.*+?()[\]{}|\/]/gu, "\\$&").replace(/\s+/gu, "\\s+");
  const pattern = literal && new RegExp(literal, "giu");
  ranges = pattern ? segments.flatMap((li) => rangesOf(li.querySelector("p"), pattern)) : [];
  current = -1;
  document.getElementById("next-found").hidden = ranges.length < 2;
  if (ranges.length) nextFound(); else report();
}

function report() {
  const count = ranges.length ? `${current + 1} of ${ranges.length}` : "not found";
  document.getElementById("found").textContent = search.value.trim() ? count : "";
  if (!CSS.highlights) return; // an older browser: the count and the jump remain
  CSS.highlights.set("found", new Highlight(...ranges));
  CSS.highlights.set("current", new Highlight(...(ranges[current] ? [ranges[current]] : [])));
}

function nextFound() {
  if (!ranges.length) return;
  current = (current + 1) % ranges.length;
  report();
  show(ranges[current].startContainer.parentElement);
}

search.addEventListener("input", find);
document.getElementById("next-found").addEventListener("click", nextFound);

// unsure words

const unsure = words.filter((word) => word.classList.contains("unsure"));
let doubted = -1;

function nextUnsure() {
  if (!unsure.length) return;
  if (doubted >= 0) unsure[doubted].classList.remove("chosen");
  doubted = (doubted + 1) % unsure.length;
  unsure[doubted].classList.add("chosen");
  show(unsure[doubted]);
  player.currentTime = Number(unsure[doubted].dataset.start);
}

document.getElementById("next-unsure")?.addEventListener("click", nextUnsure);

// keyboard

function step(by) {
  const at = now ? segments.indexOf(now.closest("li")) : -1;
  const li = segments[Math.max(0, Math.min(segments.length - 1, at + by))];
  if (li) playFrom(Number(li.querySelector(".time").dataset.start));
}

const KEYS = {
  " ": () => (player.paused ? playFrom(player.currentTime) : player.pause()),
  ArrowLeft: () => { player.currentTime -= 5; },
  ArrowRight: () => { player.currentTime += 5; },
  j: () => step(1),
  k: () => step(-1),
  u: nextUnsure,
  "/": () => search.focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === search) {
    if (event.key === "Enter") nextFound();
    if (event.key === "Escape") search.blur();
    return;
  }
  if (event.target.matches("button, summary, input") && event.key === " ") return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) { event.preventDefault(); act(); }
});
