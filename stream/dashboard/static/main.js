/** The page: hands each message to the panels that take its kind, and nothing else. */

import { Connection } from "/static/connection.js";
import { $ } from "/static/dom.js";
import { keyboard } from "/static/keys.js";
import { lineShown } from "/static/line.js";
import { accuracy } from "/static/panels/accuracy.js";
import { answer } from "/static/panels/answer.js";
import { checks } from "/static/panels/checks.js";
import { controls } from "/static/panels/controls.js";
import { eeg } from "/static/panels/eeg.js";
import { evoked } from "/static/panels/evoked.js";
import { head } from "/static/panels/head.js";
import { latency } from "/static/panels/latency.js";
import { log } from "/static/panels/log.js";
import { painting } from "/static/panels/painting.js";
import { recording } from "/static/panels/recording.js";
import { sessionForm } from "/static/panels/session_form.js";
import { settingsForm } from "/static/panels/settings_form.js";
import { trialView } from "/static/panels/trial_view.js";
import { trials } from "/static/panels/trials.js";
import { verdicts } from "/static/panels/verdicts.js";
import { theme } from "/static/theme.js";

const panels = [];
const hear = (message) => panels.forEach((panel) => panel[message.kind]?.(message));
const connection = new Connection(hear, lineShown());

panels.push(verdicts(), answer(), painting(), accuracy(), recording());
panels.push(trials(trialView(connection)), eeg(), head(), evoked(), latency());
panels.push(controls(connection), settingsForm(connection), sessionForm(connection), log(), checks(connection));
theme();
keyboard();

/** What is large is sent, and made, only while somebody can see it. */
const seen = new Map([["eeg", "eeg"], ["quality", "head"], ["evoked", "evoked"]]);
const inView = new Set();
const watch = () => {
  const kinds = document.hidden ? [] : [...seen.keys()].filter((kind) => inView.has(seen.get(kind)));
  if (kinds.join() !== connection.watched.join()) connection.watch(kinds);
};
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries)
    isIntersecting ? inView.add(target.id) : inView.delete(target.id);
  watch();
});
for (const id of seen.values()) observer.observe($(id));
document.addEventListener("visibilitychange", watch);
