// Learned words in the prompt: a press on one puts it at the caret, and typing "<" opens a list of those that fit.
(() => {
  const field = () => document.querySelector("#st-prompt textarea, #st-prompt input");
  const known = () => [...document.querySelectorAll("[data-word]")].map((button) => button.dataset.word);
  let list = null;
  let chosen = 0;
  let left = null; // where the caret was when the prompt lost the focus

  function put(input, text, caret) {
    const kind = input.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(input, text);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.focus();
    input.setSelectionRange(caret, caret);
  }

  function close() {
    if (list) list.remove();
    list = null;
    const input = field();
    if (input) {
      input.setAttribute("aria-expanded", "false");
      input.removeAttribute("aria-activedescendant");
    }
  }

  // The part of a word that stands before the caret, "<re" of "a photo of <re".
  const begun = (input) => (/<[^<>\s]*$/.exec(input.value.slice(0, input.selectionStart)) || [null])[0];

  function accept(input, word) {
    const caret = input.selectionStart;
    const from = caret - (begun(input) || "").length;
    const after = input.value.slice(caret).replace(/^[^<>\s]*>/, "");
    put(input, input.value.slice(0, from) + word + after, from + word.length);
    close();
  }

  function mark(input) {
    [...list.children].forEach((item, place) => item.setAttribute("aria-selected", String(place === chosen)));
    input.setAttribute("aria-activedescendant", list.children[chosen].id);
  }

  function offer(input) {
    const start = begun(input);
    const fitting = start === null ? [] : known().filter((word) => word.toLowerCase().startsWith(start.toLowerCase()));
    close();
    if (!fitting.length || (fitting.length === 1 && fitting[0] === start)) return;
    list = document.createElement("ul");
    list.className = "st-list";
    list.id = "st-list";
    list.setAttribute("role", "listbox");
    fitting.slice(0, 8).forEach((word, place) => {
      const item = document.createElement("li");
      item.id = `st-list-${place}`;
      item.setAttribute("role", "option");
      item.textContent = word; // text, never HTML
      item.addEventListener("mousedown", (event) => { event.preventDefault(); accept(input, word); });
      list.append(item);
    });
    const box = input.getBoundingClientRect();
    list.style.left = `${box.left + window.scrollX}px`;
    list.style.top = `${box.bottom + window.scrollY + 4}px`;
    document.body.append(list);
    input.setAttribute("role", "combobox");
    input.setAttribute("aria-controls", "st-list");
    input.setAttribute("aria-expanded", "true");
    chosen = 0;
    mark(input);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("[data-word]");
    if (!button) return;
    const input = field();
    const caret = Math.min(left === null ? input.value.length : left, input.value.length);
    const before = input.value.slice(0, caret);
    const gap = before && !before.endsWith(" ") ? " " : "";
    const end = caret + gap.length + button.dataset.word.length;
    put(input, before + gap + button.dataset.word + input.value.slice(caret), end);
    left = end;
    close();
  });
  document.addEventListener("input", (event) => { if (event.isTrusted && event.target === field()) offer(event.target); });
  document.addEventListener("focusout", (event) => { if (event.target === field()) { left = event.target.selectionStart; close(); } });
  document.addEventListener("keydown", (event) => {
    if (!list || event.target !== field()) return;
    const count = list.children.length;
    if (event.key === "ArrowDown") chosen = (chosen + 1) % count;
    else if (event.key === "ArrowUp") chosen = (chosen + count - 1) % count;
    else if (event.key === "Enter" || event.key === "Tab") accept(event.target, list.children[chosen].textContent);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
    if (list) mark(event.target);
  }, true);
})();
