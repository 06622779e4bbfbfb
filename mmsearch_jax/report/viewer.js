// The elements of one episode. Text of policies and pages is inserted only by textContent.

/** An element with a class, text and children; null children are skipped. */
function make(tag, className, text, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** The address of a result if it may be a link (http or https), else null. */
function webAddress(text) {
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

function jpeg(encoded, text) {
  const image = make("img");
  image.src = "data:image/jpeg;base64," + encoded;
  image.alt = text;
  image.decoding = "async";
  return image;
}

/** The question's image with the regions that the episodes searched. */
function frame(data, episodes) {
  const known = data.images[episodes[0].image];
  if (!known) return make("div", "gone", "the image is missing or was left out");
  const [width, height, encoded] = known;
  const holder = make("div", "frame", null, jpeg(encoded, "the question's image"));
  for (const episode of episodes)
    episode.turns.forEach((turn, number) => {
      if (!turn.box) return;
      const [left, top, right, bottom] = turn.box;
      const box = make("div", "box", null, make("span", "", String(number + 1)));
      box.style.left = (100 * left) / width + "%";
      box.style.top = (100 * top) / height + "%";
      box.style.width = (100 * (right - left)) / width + "%";
      box.style.height = (100 * (bottom - top)) / height + "%";
      holder.append(box);
    });
  return holder;
}

function hitElement(data, [title, address, thumbnail, snippet]) {
  const url = webAddress(address);
  const name = make(url ? "a" : "b", "", title || address || "untitled");
  if (url) {
    name.href = url;
    name.rel = "noopener noreferrer nofollow";
    name.target = "_blank";
    name.title = url;
  }
  const picture = thumbnail === null ? null : jpeg(data.thumbnails[thumbnail], "");
  return make("div", "hit", null, picture, make("div", "", null, name, " " + snippet));
}

/** A key that is equal for turns with the same action. */
function deed(turn) {
  return turn ? [turn.kind, turn.tool, turn.query, turn.text].join("\n") : "";
}

function turnElement(data, turn, differs) {
  const element = make("div", differs ? "turn differs" : "turn");
  if (turn.reason) element.append(make("div", "reason", turn.reason));
  if (turn.tool) {
    const line = make("div", "", null, make("span", "call", turn.tool === "text_search" ? "text search" : "image search"));
    line.append(" " + (turn.query || "the whole image"));
    for (const fact of [turn.how, turn.ms ? turn.ms + " ms" : ""]) if (fact) line.append(" ", make("span", "small", fact));
    element.append(line);
  } else if (turn.text) element.append(make("div", "", turn.text));
  if (turn.error) element.append(make("div", "failure", turn.error));
  if (turn.note) element.append(make("div", "small", turn.note));
  for (const hit of turn.hits || []) element.append(hitElement(data, hit));
  if (turn.observation)
    element.append(make("details", "", null, make("summary", "", "what the policy read"), make("pre", "", turn.observation)));
  return element.childNodes.length ? element : null;
}

/** Turns and answer of one episode; `other` is the episode that it is compared with. */
function side(data, episode, other) {
  const element = make("div", "side");
  if (other !== undefined) {
    element.append(make("h3", "", data.evaluations[episode.e].label));
    element.append(make("div", "tags", null, tag(episode.outcome, episode.outcome), tag(episode.status)));
  }
  episode.turns.forEach((turn, i) => {
    const shown = turnElement(data, turn, Boolean(other) && deed(turn) !== deed(other.turns[i]));
    if (shown) element.append(shown);
  });
  element.append(make("div", "answer " + episode.outcome, episode.answer === null ? "no answer" : episode.answer));
  if (episode.error) element.append(make("div", "failure", episode.error));
  if (episode.tokens) element.append(tokenPanel(data, episode.tokens));
  return element;
}

function tag(text, className) {
  return make("span", className ? "tag " + className : "tag", text);
}

/** Question, gold answers and, for an episode without a partner, its outcome. */
function heading(data, episode, alone) {
  const kind = data.kinds[episode.kind] || episode.kind;
  const facts = [kind, episode.category].filter(Boolean).map((text) => tag(text));
  if (alone) {
    facts.unshift(tag(data.evaluations[episode.e].label));
    facts.push(tag(episode.outcome, episode.outcome), tag(episode.status));
  }
  if (episode.score !== undefined && episode.score % 1) facts.push(tag("score " + episode.score.toFixed(2)));
  const gold = episode.gold.slice(0, 5).join(" | ") + (episode.gold.length > 5 ? " | …" : "");
  return [make("p", "question", episode.question), make("div", "tags", null, ...facts, tag("gold: " + gold))];
}

/** The article of one episode, or of two episodes on the same question. */
function article(data, episode, other) {
  if (other === undefined) {
    const text = make("div", "side", null, ...heading(data, episode, true), ...side(data, episode).childNodes);
    return make("article", "", null, make("figure", "", null, frame(data, [episode])), text);
  }
  const about = make("div", "about", null, make("figure", "", null, frame(data, other ? [episode, other] : [episode])));
  about.append(make("div", "side", null, ...heading(data, episode, false)));
  const second = other ? side(data, other, episode) : make("div", "side", null, make("p", "small", "no episode for this question"));
  return make("article", "pair", null, about, side(data, episode, other), second);
}
