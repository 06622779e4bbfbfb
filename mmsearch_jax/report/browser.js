// Filters and the list. Articles are created in small batches, so that the page stays fast with thousands of episodes.

const STEP = 12;

async function load() {
  const text = (id) => document.getElementById(id).textContent;
  const packed = Uint8Array.from(atob(text("episodes")), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = JSON.parse(await new Response(stream).text());
  data.images = JSON.parse(text("images"));
  data.thumbnails = JSON.parse(text("thumbnails"));
  return data;
}

/** The kinds of tool use by which an episode can be filtered. */
function toolUses(episode) {
  const tools = episode.tools;
  const uses = tools.length ? ["any search", ...new Set(tools.map((tool) => tool.replace("_", " ")))] : ["no search"];
  if (tools.filter((tool) => tool === "text").length > 1) uses.push("several text searches");
  if (tools.includes("text") && tools.some((tool) => tool !== "text")) uses.push("image and text");
  return uses;
}

/** The text of an episode that the search field searches, in lower case; computed on first use. */
function searchText(episode) {
  if (episode.searchText === undefined) {
    const turns = episode.turns.flatMap((turn) => [turn.reason, turn.query, turn.text, turn.observation, turn.error]);
    const parts = [episode.id, episode.question, episode.answer, episode.error, ...episode.gold, ...turns];
    episode.searchText = parts.filter(Boolean).join("\n").toLowerCase();
  }
  return episode.searchText;
}

function start(data) {
  const root = document.getElementById("browser");
  const key = (episode) => data.evaluations[episode.e].benchmark + "\n" + episode.id + "\n" + episode.repeat;
  const partners = new Map();
  for (const episode of data.episodes) {
    const name = data.evaluations[episode.e].label;
    if (!partners.has(name)) partners.set(name, new Map());
    partners.get(name).set(key(episode), episode);
  }
  const unique = (values) => [...new Set(values)].filter(Boolean);
  const order = (values) => unique(values).sort();

  const filters = {
    evaluation: chooser("evaluation", "all evaluations", unique(data.evaluations.map((e) => e.label))),
    benchmark: chooser("benchmark", "all benchmarks", unique(data.evaluations.map((e) => e.benchmark))),
    kind: chooser("kind of question", "all kinds", unique(data.episodes.map((e) => e.kind)), (kind) => data.kinds[kind] || kind),
    category: chooser("category", "all categories", order(data.episodes.map((e) => e.category))),
    outcome: chooser("outcome", "right and wrong", ["right", "wrong", "failed"]),
    tool: chooser("tools", "any tool use", order(data.episodes.flatMap(toolUses))),
    status: chooser("status", "all statuses", order(data.episodes.map((e) => e.status))),
    against: chooser("compare with", "compare with …", unique(data.evaluations.map((e) => e.label))),
    change: chooser("change", "any change", ["became right", "became wrong", "answers differ"]),
  };
  const words = make("input");
  words.type = "search";
  words.placeholder = "search questions, reasons, results …";
  words.setAttribute("aria-label", "search text");
  const count = make("p", "count");
  count.setAttribute("aria-live", "polite");
  const list = make("div", "list");
  const more = make("button", "more", "show more");
  more.type = "button";
  root.replaceChildren(make("div", "filters", null, ...Object.values(filters), words), count, list, more);
  for (const [name, select] of Object.entries(filters)) {
    select.dataset.filter = name;
    // Two options (all, and one value) offer no choice.
    select.hidden = select.options.length < 3;
  }
  const first = data.evaluations.find((e) => e.name === "grpo");
  if (first) filters.evaluation.value = first.label;

  let matching = [], shown = 0;
  const other = (episode) => (partners.get(filters.against.value) || new Map()).get(key(episode)) || null;
  const changed = (episode, second) => {
    if (!second) return !filters.change.value;
    if (filters.change.value === "became right") return episode.outcome !== "right" && second.outcome === "right";
    if (filters.change.value === "became wrong") return episode.outcome === "right" && second.outcome !== "right";
    return filters.change.value !== "answers differ" || episode.answer !== second.answer;
  };
  const passes = (episode) => {
    const evaluation = data.evaluations[episode.e];
    return (
      (!filters.evaluation.value || evaluation.label === filters.evaluation.value) &&
      (!filters.benchmark.value || evaluation.benchmark === filters.benchmark.value) &&
      (!filters.kind.value || episode.kind === filters.kind.value) &&
      (!filters.category.value || episode.category === filters.category.value) &&
      (!filters.outcome.value || episode.outcome === filters.outcome.value) &&
      (!filters.status.value || episode.status === filters.status.value) &&
      (!filters.tool.value || toolUses(episode).includes(filters.tool.value)) &&
      (!filters.against.value || changed(episode, other(episode))) &&
      words.value.toLowerCase().split(/\s+/).every((word) => searchText(episode).includes(word))
    );
  };
  const showMore = () => {
    const next = matching.slice(shown, shown + STEP);
    list.append(...next.map((episode) => article(data, episode, filters.against.value ? other(episode) : undefined)));
    shown += next.length;
    more.hidden = shown >= matching.length;
    count.textContent = matching.length + " of " + data.episodes.length + " episodes, " + shown + " shown";
  };
  const refresh = () => {
    filters.change.hidden = !filters.against.value;
    matching = data.episodes.filter(passes);
    shown = 0;
    list.replaceChildren();
    showMore();
  };
  for (const select of Object.values(filters)) select.addEventListener("change", refresh);
  let pause = 0;
  words.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(refresh, 150);
  });
  more.addEventListener("click", showMore);
  refresh();
  root.dataset.ready = "yes";
}

function chooser(name, all, values, named = (value) => value) {
  const select = make("select");
  select.setAttribute("aria-label", name);
  const option = (value, text) => {
    const element = make("option", "", text);
    element.value = value;
    return element;
  };
  select.append(option("", all), ...values.map((value) => option(value, named(value))));
  return select;
}

// Opens the folded parts for printing.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not([open])")) {
    fold.open = true;
    fold.dataset.printed = "yes";
  }
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll("details[data-printed]")) {
    fold.open = false;
    delete fold.dataset.printed;
  }
});

load().then(start).catch((error) => {
  document.getElementById("browser").textContent = "This browser cannot read the episodes: " + error.message;
  throw error;
});
