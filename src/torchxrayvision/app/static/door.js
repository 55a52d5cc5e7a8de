// The way in for a browser without access: a password, or what to do instead.
import {loadWords, fillWords, say} from "./words.js";

await loadWords();
fillWords(document);
const {password} = await (await fetch("/login")).json();
document.getElementById(password ? "form" : "closed").hidden = false;
document.getElementById("form").addEventListener("submit", async event => {
  event.preventDefault();
  const given = document.getElementById("password").value;
  const answer = await fetch("/login", {method: "POST", body: JSON.stringify({password: given})});
  if (answer.ok) location.replace("/");
  else document.getElementById("wrong").textContent = say("error.wrong-password");
});
