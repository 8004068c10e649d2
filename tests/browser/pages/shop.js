// A page that shows an answer while it is written, and goes on where it was after its network was away.
"use strict";

const shown = document.querySelector("#answer");
// What the test looks at. `lost`: how long the text was each time that a connection broke or could not be made.
const state = { stream: null, seq: 0, ended: false, refused: null, lost: [] };

const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
const bearer = (token) => ({ Authorization: `Bearer ${token}` });

function show(data) {
  shown.textContent += data.choices?.[0]?.delta?.content ?? "";
}

// `start`: a body to ask with. Without it, `stream` is followed.
async function readByFetch({ desk, token, start, stream }) {
  const key = crypto.randomUUID();
  state.stream = stream ?? null;
  const ask = () =>
    state.stream === null
      ? fetch(`${desk}/v1/chat/completions`, {
          method: "POST",
          headers: { ...bearer(token), "Content-Type": "application/json", "Idempotency-Key": key },
          body: JSON.stringify(start),
        })
      : fetch(`${desk}/v1/streams/${state.stream}/events`, {
          headers: { ...bearer(token), ...(state.seq && { "Last-Event-ID": `${state.stream}-${state.seq}` }) },
        });
  while (!state.ended && state.refused === null) {
    try {
      const answer = await ask();
      if (answer.ok) await readEvents(answer.body);
      else state.refused = answer.status;
    } catch {
      // The network is away; what came so far stands.
    }
    if (!state.ended) state.lost.push(shown.textContent.length);
    await pause();
  }
}

async function readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    blocks.forEach(readEvent);
  }
}

function readEvent(block) {
  const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
  if (!("data" in fields)) return;
  const cut = fields.id.lastIndexOf("-");
  state.stream = fields.id.slice(0, cut);
  state.seq = Number(fields.id.slice(cut + 1));
  if (fields.data === "[DONE]") state.ended = true;
  else show(JSON.parse(fields.data));
}

// `proof`: the subprotocol that holds a token or a ticket.
async function readBySocket({ desk, proof, start, stream }) {
  const key = crypto.randomUUID();
  state.stream = stream ?? null;
  while (!state.ended && state.refused === null) {
    await new Promise((closed) => {
      const socket = new WebSocket(`${desk.replace("http", "ws")}/v1/ws`, ["nightdesk.v1", proof]);
      const say = (word) => socket.send(JSON.stringify(word));
      socket.onopen = () =>
        say(
          state.stream === null
            ? { type: "start", ref: "a", body: start, idempotency_key: key }
            : { type: "follow", ref: "a", stream: state.stream, after: state.seq },
        );
      socket.onmessage = ({ data }) => {
        const said = JSON.parse(data);
        if (said.type === "ping") say({ type: "pong", id: said.id });
        if (said.type === "started") state.stream = said.stream;
        if (said.type === "error") state.refused = said.error;
        if (said.type === "event") {
          state.seq = said.seq;
          if (said.data !== "[DONE]") show(said.data);
        }
        if (said.type === "end") {
          state.ended = said.kind === "done";
          if (!state.ended) state.refused = said;
          socket.close(1000);
        }
      };
      socket.onclose = closed;
    });
    if (!state.ended) state.lost.push(shown.textContent.length);
    await pause();
  }
}

// What a page gets that asks once: a status, or "blocked" where the browser lets it see nothing.
async function tryFetch({ address, token, body }) {
  const how = body ? { method: "POST", body: JSON.stringify(body) } : {};
  try {
    const answer = await fetch(address, { ...how, headers: { ...bearer(token), "Content-Type": "application/json" } });
    await answer.text();
    return answer.status;
  } catch {
    return "blocked";
  }
}

// "ready" where the desk takes the proof, or the code that it closes with.
async function trySocket({ desk, proof }) {
  return new Promise((tell) => {
    const socket = new WebSocket(`${desk.replace("http", "ws")}/v1/ws`, ["nightdesk.v1", proof]);
    socket.onmessage = ({ data }) => JSON.parse(data).type === "ready" && tell("ready");
    socket.onclose = ({ code }) => tell(code);
  });
}
