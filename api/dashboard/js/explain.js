// "Explain this packet": the loaded program's own word on what becomes of it, step by step.

import { call } from "./api.js";
import { byId, h, say, set } from "./dom.js";
import { endpoint } from "./format.js";

const PATIENCE_MS = 30000;
const TONES = { drop: "bad", tx: "ok", redirect: "ok", pass: "plain" };
const SIGNS = { drop: "✕", tx: "→", redirect: "→", pass: "↓" };

export class Explain {
  constructor() {
    const text = (name, placeholder) => h("input", { name, placeholder, class: "mono", autocomplete: "off", spellcheck: "false" });
    this.src = text("src", "198.51.100.7:40000");
    this.dst = text("dst", "192.0.2.10:80");
    this.protocol = h("select", { name: "protocol" }, ...["tcp", "udp", "icmp"].map((p) => h("option", { value: p }, p)));
    this.syn = h("input", { type: "checkbox", name: "syn", checked: true });
    this.hex = h("textarea", { name: "hex", rows: 2, class: "mono", spellcheck: "false", placeholder: "An Ethernet frame in hex" });
    this.said = h("p", { class: "refusal", role: "alert", hidden: true });
    this.answer = h("div", { class: "explained", role: "status", "aria-live": "polite" });
    const label = (name, control) => h("label", { class: "field" }, h("span", {}, name), control);
    this.form = h("form", { class: "explain", onsubmit: (event) => { event.preventDefault(); this.ask(); } },
      label("From", this.src), label("To", this.dst), label("Protocol", this.protocol),
      h("label", { class: "check" }, this.syn, " SYN"),
      h("button", { type: "submit", class: "primary" }, "Explain"),
      h("details", { class: "frame" }, h("summary", {}, "or give the whole frame"), label("Frame", this.hex)));
    this.protocol.addEventListener("change", () => { this.syn.disabled = this.protocol.value !== "tcp"; });
    byId("explain").append(this.form, this.said, this.answer);
  }

  /** Fill in where a service listens, and let the source be typed. */
  about(service) {
    const port = service.port === null ? null : String(service.port).match(/^\d+/)?.[0] ?? "80";
    this.dst.value = endpoint(service.vip.split("/")[0], port);
    this.protocol.value = service.protocol;
    this.syn.disabled = service.protocol !== "tcp";
    this.hex.value = "";
    this.focus();
  }

  focus() {
    this.form.scrollIntoView({ block: "center" });
    this.src.focus();
  }

  async ask() {
    const hex = this.hex.value.replaceAll(/\s+/g, "");
    const body = hex ? { hex } : { src: this.src.value.trim(), dst: this.dst.value.trim(), protocol: this.protocol.value };
    if (!hex && body.protocol === "tcp" && this.syn.checked) body.syn = true;
    set(this.form, "aria-busy", "true");
    this.said.hidden = true;
    try {
      const { packets } = await call("POST", "/explain", { body, timeout: PATIENCE_MS });
      this.answer.replaceChildren(...packets.map(show));
    } catch (problem) {
      this.answer.replaceChildren();
      say(this.said, problem.message);
      this.said.hidden = false;
    } finally {
      set(this.form, "aria-busy", null);
    }
  }
}

function show(packet) {
  const facts = [
    ["service", packet.service], ["backend", packet.backend],
    ["chosen by", packet.via && { flow: "the flow table", ring: "the ring", "quic-cid": "the QUIC connection id" }[packet.via]],
    ["entry", entryWords(packet.entry)],
  ].filter(([, value]) => value);
  return h("div", {},
    h("p", { class: "verdict", "data-tone": TONES[packet.action] ?? "plain" },
      h("span", { "aria-hidden": true }, `${SIGNS[packet.action] ?? "·"} `), h("strong", {}, packet.verdict), ` ${packet.reason}`),
    facts.length ? h("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])) : null,
    h("ol", { class: "steps" }, ...packet.steps.map((step) => h("li", { "data-end": step.result === "continue" ? null : true },
      h("span", { class: "stage" }, step.stage), h("span", { class: "result" }, step.result), h("span", { class: "detail" }, step.detail)))),
    packet.frame_out ? h("details", { class: "frame" }, h("summary", {}, `the frame that leaves, ${packet.frame_out.length / 2} bytes`), h("code", {}, packet.frame_out)) : null);
}

function entryWords(entry) {
  if (!entry) return null;
  if (entry.kind === "flow") return `a flow seen ${entry.age_seconds} s ago (${entry.class})`;
  if (entry.kind === "rule") return `rule ${entry.name}`;
  return `${entry.kind} ${entry.prefix}, ${(entry.owners ?? ["operator"])[0]}${entry.reason ? `: ${entry.reason}` : ""}`;
}
