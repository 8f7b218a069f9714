"use strict";
const $ = (id) => document.getElementById(id);
const form = $("ask"), list = $("segments"), player = $("player"), bar = $("progress");
let running = null; // what Stop ends: {stop()}
let spoken = ""; // what Copy copies
let addresses = []; // of downloads and of the sound, given back with the next recording

function say(text, failed = false) {
  $("state").textContent = text;
  $("state").classList.toggle("bad", failed);
}

function clock(seconds) {
  const whole = Math.floor(seconds), two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function address(blob) {
  addresses.push(URL.createObjectURL(blob));
  return addresses.at(-1);
}

function begin(task) {
  running?.stop();
  running = task;
  addresses.forEach((each) => URL.revokeObjectURL(each));
  addresses = [];
  list.replaceChildren();
  player.removeAttribute("src");
  for (const part of [$("results"), bar, player]) part.hidden = true;
  $("stop").hidden = false;
}

function end(task, text, failed = false) {
  if (running !== task) return; // another one has begun
  running = null;
  $("stop").hidden = bar.hidden = true;
  $("speak").setAttribute("aria-pressed", "false");
  $("speak").textContent = "Speak";
  say(text, failed);
}

// what was heard

function line(start, text, tentative = false) {
  const item = document.createElement("li"), time = document.createElement("button");
  const paragraph = document.createElement("p");
  time.type = "button";
  time.className = "time";
  time.textContent = clock(start);
  time.setAttribute("aria-label", `Play from ${clock(start)}`);
  time.disabled = player.hidden;
  time.addEventListener("click", () => { player.currentTime = start; player.play(); });
  paragraph.dir = "auto";
  paragraph.textContent = text.trim();
  item.classList.toggle("tentative", tentative);
  item.append(time, paragraph);
  return item;
}

function show(item) {
  const near = innerHeight + scrollY > document.body.scrollHeight - 120;
  list.append(item);
  if (near) item.scrollIntoView({ block: "nearest" });
}

function offer(files, name) {
  spoken = files.txt;
  for (const link of document.querySelectorAll(".download")) {
    const format = link.dataset.format;
    link.href = address(new Blob([files[format]], { type: "text/plain;charset=utf-8" }));
    link.download = `${name}.${format}`;
  }
  $("results").hidden = false;
}

$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(spoken);
    say("The text is copied.");
  } catch {
    say("This browser does not let a page copy here: download the text instead.", true);
  }
});

// a recording

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

async function transcribe(file) {
  const abort = new AbortController(), task = { stop: () => abort.abort() };
  begin(task);
  player.src = address(file);
  player.hidden = false;
  say(`Sending ${file.name} …`);
  const fields = new FormData(form);
  fields.append("file", file, file.name);
  try {
    const response = await fetch("transcribe", { method: "POST", body: fields, signal: abort.signal });
    if (!response.ok) throw new Error((await response.json()).error.message);
    say("Listening …");
    for await (const event of lines(response.body)) hear(event, file);
    end(task, list.children.length ? "Done." : "No speech was heard.");
  } catch (error) {
    if (abort.signal.aborted) end(task, "Stopped.");
    else end(task, String(error.message || error), true);
  }
}

function hear(event, file) {
  if (event.error) throw new Error(event.error.message);
  if (event.event === "segment" && event.text.trim()) show(line(event.start, event.text));
  if (event.event === "progress") {
    bar.hidden = !Number.isFinite(player.duration);
    bar.max = player.duration || 1;
    bar.value = event.seconds;
    say(`${clock(event.seconds)} transcribed`);
  }
  if (event.event === "done") offer(event.files, file.name.replace(/\.[^.]*$/u, "") || "transcript");
}

$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) transcribe(file);
  event.target.value = ""; // the same file may be chosen again
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    const [file] = kind === "drop" ? event.dataTransfer.files : [];
    if (file) transcribe(file);
  });
}

// speech

const RECORDER = `registerProcessor("recorder", class extends AudioWorkletProcessor {
  process([[samples]]) { if (samples) this.port.postMessage(samples.slice()); return true; }
});`;

async function microphone() {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give the microphone only to pages from https or from this machine.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  } catch (error) {
    throw new Error(`The microphone cannot be used: ${error.message}`);
  }
}

async function speak() {
  const task = { stop: () => { task.stopped = true; task.finish?.(); } };
  begin(task);
  say("Waiting for the microphone …");
  let stream, context, socket;
  try {
    stream = await microphone();
    context = new AudioContext({ sampleRate: 16000 });
    const module = URL.createObjectURL(new Blob([RECORDER], { type: "text/javascript" }));
    await context.audioWorklet.addModule(module);
    URL.revokeObjectURL(module);
    socket = new WebSocket(location.href.replace(/^http/u, "ws"));
    await converse(task, socket, context, stream);
  } catch (error) {
    end(task, String(error.message || error), true);
  } finally {
    socket?.close();
    stream?.getTracks().forEach((track) => track.stop());
    context?.close();
  }
}

function converse(task, socket, context, stream) {
  const fields = Object.fromEntries(new FormData(form));
  const recorder = new AudioWorkletNode(context, "recorder");
  recorder.port.onmessage = ({ data }) => {
    if (socket.readyState === WebSocket.OPEN && !task.stopped) socket.send(data);
  };
  task.finish = () => { // the last words are still to come
    if (socket.readyState === WebSocket.OPEN) socket.send(new TextEncoder().encode("END_OF_AUDIO"));
    else socket.close();
    say("Finishing …");
  };
  return new Promise((resolve, reject) => {
    socket.onopen = () => socket.send(JSON.stringify({ uid: "page", files: true, use_vad: true, ...fields }));
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.status === "ERROR") reject(new Error(message.message));
      if (message.message === "SERVER_READY") {
        context.createMediaStreamSource(stream).connect(recorder);
        $("speak").setAttribute("aria-pressed", "true");
        $("speak").textContent = "Stop";
        say("Speak now.");
      }
      if (message.segments) draw(message.segments);
      if (message.files) offer(message.files, "speech");
    };
    socket.onclose = () => {
      end(task, list.children.length ? "Done." : "No speech was heard.");
      resolve();
    };
    socket.onerror = () => reject(new Error("The connection is broken."));
  });
}

function draw(segments) {
  list.querySelector(".tentative")?.remove();
  for (const { start, text, completed } of segments) {
    if (completed && document.getElementById(`at-${start}`)) continue; // told again
    const item = line(Number(start), text, !completed);
    if (completed) item.id = `at-${start}`;
    show(item);
  }
}

$("speak").addEventListener("click", () => {
  if ($("speak").getAttribute("aria-pressed") === "true") running?.stop(); else speak();
});
$("stop").addEventListener("click", () => running?.stop());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.stop();
});
