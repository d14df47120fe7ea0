// What both pages make their elements with.

const $ = (id) => document.getElementById(id);

const html = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

