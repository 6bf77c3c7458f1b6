"use strict";
(() => {
  /** Time between two looks at the figures. */
  const PAUSE = 1000;
  /** Elements of an input that are still written as text. */
  const MOST_ELEMENTS = 100000;
  /** Characters of a request that still stand on a command line. */
  const MOST_ON_A_LINE = 4000;

  const byId = (id) => document.getElementById(id);
  const model = byId("model"), request = byId("request");
  const key = (one) => `${one.name}/${one.version}`;
  /** What is known of each version, by name and version. */
  let known = new Map();
  /** What of a version never changes, as it is shown. */
  const shown = new Map();

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const rate = (value) => value >= 100 ? value.toFixed(0) : value.toFixed(1);
  const time = (ms) => {
    if (ms === null) return "–";
    if (ms < 1) return `${Math.round(ms * 1000)} µs`;
    return ms < 1000 ? `${ms.toPrecision(3)} ms` : `${(ms / 1000).toPrecision(3)} s`;
  };
  const shape = (dimensions) => dimensions
    ? `[${dimensions.map((size) => size === null ? "any" : size).join(", ")}]` : "any shape";

  const tensors = (one) => {
    const table = element("table"), head = element("thead"), body = element("tbody");
    const titles = element("tr");
    for (const title of ["", "Name", "Type", "Shape"]) {
      const cell = element("th", title);
      cell.scope = "col";
      titles.append(cell);
    }
    head.append(titles);
    for (const [what, specs] of [["Input", one.served.inputs], ["Output", one.served.outputs]]) {
      for (const spec of specs) {
        const row = element("tr");
        row.append(element("td", what), element("td", spec.name, "code"),
          element("td", spec.datatype, "code"), element("td", shape(spec.shape), "code"));
        body.append(row);
      }
    }
    table.append(head, body);
    const scroll = element("div", undefined, "scroll");
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", `Inputs and outputs of ${one.name}, version ${one.version}`);
    scroll.tabIndex = 0;
    scroll.append(table);
    return scroll;
  };

  const FIGURES = [
    ["Requests", (one) => `${rate(one.last_minute.requests_per_second)} /s`],
    ["Failed", (one) => `${rate(one.last_minute.failures_per_second)} /s`],
    ["Half within", (one) => time(one.last_minute.p50_ms)],
    ["95 % within", (one) => time(one.last_minute.p95_ms)],
    ["99 % within", (one) => time(one.last_minute.p99_ms)],
    ["Waiting", (one) => String(one.waiting)],
  ];

  /** A card for a version; what changes in it is written by the function that comes with it. */
  const card = (one) => {
    const section = element("section"), title = element("div", undefined, "title");
    const heading = element("h2", one.name), badge = element("span", "", "badge");
    const reason = element("p", "", "note");
    if (one.version !== null) heading.append(element("span", ` version ${one.version}`, "quiet"));
    title.append(heading, badge);
    section.append(title, reason);
    let values = [], batching;
    if (one.served) {
      const list = element("dl", undefined, "figures");
      values = FIGURES.map(([name, of]) => {
        const pair = element("div"), value = element("dd");
        pair.append(element("dt", name), value);
        list.append(pair);
        return [value, of];
      });
      batching = element("p", "", "why");
      section.append(list, batching, tensors(one));
      section.append(element("p", `BLAKE3 ${one.served.blake3}`, "quiet why"));
    }
    const write = (now) => {
      put(badge, now.state.toLowerCase());
      badge.className = `badge ${now.is_ready ? "good" : "bad"}`;
      reason.hidden = !now.reason;
      put(reason, now.reason ?? "");
      for (const [value, of] of values) put(value, of(now.served));
      if (batching) {
        const { is_on: isOn, why } = now.served.batching;
        put(batching, `Batching is ${isOn ? "on" : "off"}: ${why}.`);
      }
    };
    return { section, write, of: one.served?.blake3 };
  };

  const showState = (text, tone) => {
    put(byId("state"), text);
    byId("state").className = `badge ${tone}`;
  };

  const show = (live) => {
    put(byId("release"), live.version);
    showState(live.not_ready ?? "ready", live.not_ready ? "bad" : "good");
    const before = [...known.keys()].join();
    known = new Map(live.models.map((one) => [key(one), one]));
    for (const [id, old] of shown) {
      if (!known.has(id) || known.get(id).served?.blake3 !== old.of) {
        old.section.remove();
        shown.delete(id);
      }
    }
    let place = byId("models").firstChild;
    for (const [id, one] of known) {
      if (!shown.has(id)) {
        shown.set(id, card(one));
        byId("models").insertBefore(shown.get(id).section, place);
      }
      shown.get(id).write(one);
      place = shown.get(id).section.nextSibling;
    }
    if (before !== [...known.keys()].join()) choose();
  };

  /** The models to choose from, without changing what is chosen. */
  const choose = () => {
    const chosen = model.value;
    const all = [...known.values()].filter((one) => one.served);
    model.replaceChildren(...all.map((one) => {
      const option = element("option", `${one.name}, version ${one.version}`);
      option.value = key(one);
      return option;
    }));
    if (known.get(chosen)?.served) model.value = chosen;
    if (!request.value) writeExample();
  };

  const look = async () => {
    try {
      const answer = await fetch("live.json", { cache: "no-store" });
      const said = await answer.json();
      if (answer.ok) show(said);
      else showState(said.error, "bad");
    } catch {
      showState("the server does not answer", "bad");
    }
  };

  const VALUES = {
    BOOL: () => true,
    BYTES: () => "text",
    FP16: (at) => at % 16 / 16,
    BF16: (at) => at % 16 / 16,
    FP32: (at) => at % 16 / 16,
    FP64: (at) => at % 16 / 16,
  };

  /** An input that fits: 1 for each size that is free. */
  const example = (spec) => {
    const sizes = (spec.shape ?? [1]).map((size) => typeof size === "number" ? size : 1);
    const count = sizes.reduce((product, size) => product * size, 1);
    if (count > MOST_ELEMENTS) {
      throw new Error(`input '${spec.name}' has ${count} elements: too many to write here`);
    }
    const value = VALUES[spec.datatype] ?? (() => 1);
    const data = Array.from({ length: count }, (_, at) => value(at));
    return { name: spec.name, shape: sizes, datatype: spec.datatype, data };
  };

  const writeExample = () => {
    const one = known.get(model.value);
    if (!one?.served) return;
    try {
      const inputs = one.served.inputs.map(example);
      request.value = `{"inputs": [\n  ${inputs.map((input) => JSON.stringify(input)).join(",\n  ")}\n]}`;
    } catch (error) {
      request.value = "";
      put(byId("outcome"), error.message);
    }
    writeCurl();
  };

  const path = () => {
    const one = known.get(model.value);
    if (!one) return null;
    const [name, version] = [one.name, one.version].map(encodeURIComponent);
    return `v2/models/${name}/versions/${version}/infer`;
  };

  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

  const writeCurl = () => {
    const where = path();
    if (!where) return;
    const url = new URL(where, document.baseURI).href;
    const body = request.value.replace(/\n\s*/g, "");
    const data = body.length > MOST_ON_A_LINE
      ? "--data @request.json  # the request above, saved as that" : `--data ${quoted(body)}`;
    put(byId("curl"), `curl ${quoted(url)} --header 'Content-Type: application/json' ${data}`);
  };

  const send = async () => {
    const where = path(), outcome = byId("outcome"), answer = byId("answer");
    if (!where) return;
    put(outcome, "waiting …");
    const since = performance.now();
    try {
      const headers = { "Content-Type": "application/json" };
      const sent = await fetch(where, { method: "POST", headers, body: request.value });
      const text = await sent.text();
      put(outcome, `${sent.status} after ${time(performance.now() - since)}`);
      put(answer, text);
      answer.hidden = false;
    } catch {
      put(outcome, "the server does not answer");
    }
  };

  byId("try").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  byId("example").addEventListener("click", writeExample);
  model.addEventListener("change", writeExample);
  request.addEventListener("input", writeCurl);
  look();
  setInterval(() => { if (!document.hidden) look(); }, PAUSE);
})();
