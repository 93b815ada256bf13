"use strict";
// The table sorts and filters as it stands in the page; data for plots and details is unpacked
// beside it. Text from results becomes text nodes, in plots after `plain`; nothing is ever HTML.

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const drawn = new Map(); // element -> function that gives its plot in the present colours
let data = null;
