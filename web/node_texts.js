// The text of a node of this pack stays on it.
//
// A node shows what it did by ComfyUI's message "progress_text", and the page shows that. But from frontend 1.54.8 on it
// takes the text away when the run ends, and every page loses it when the graph is loaded again. So the texts are
// remembered here, and handed to the page once more: when a run has ended, and when the same graph is back.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

const PACK = "custom_nodes." + decodeURIComponent(new URL(import.meta.url).pathname.split("/").at(-2))
const ENDS = ["execution_success", "execution_error", "execution_interrupted"]
const STORE = "PeRFlow.texts" // in the storage of this tab, which a reload of the page keeps

const ours = new Set() // the types of our nodes
const graphs = JSON.parse(sessionStorage.getItem(STORE) ?? "{}") // graph id -> node id -> { text, state, old }
let reported = new Set() // the ids of the nodes that have sent a text in this run
let running = null // the id of the graph that was on the page when this run began; another may be there by now

const root = () => app.rootGraph ?? app.graph
const isOther = () => running !== null && running !== root().id
const texts = () => (graphs[root().id] ??= {})

// Our node of that id. The nodes in a subgraph have ids such as "7:3".
function find(id) {
  let graph = root(), node
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(Number(part)) ?? graph?.getNodeById(part)
    graph = node?.subgraph
  }
  return node && ours.has(node.type) ? node : null
}

// A node with another state is another one, or would say something else.
function state(node) {
  const values = (node.widgets ?? []).filter(widget => widget.serialize !== false).map(widget => widget.value)
  return JSON.stringify([node.type, values])
}

function show(id, text) {
  api.dispatchCustomEvent("progress_text", { nodeId: id, text, again: true })
}

function hide(node) {
  const shown = node.widgets?.find(widget => widget.type === "progressText")
  if (shown) node.removeWidget(shown)
}

function keep({ detail: { nodeId, text, again } }) {
  const node = find(nodeId)
  if (!node || again || isOther()) return
  texts()[nodeId] = { text, state: state(node), old: false }
  reported.add(String(nodeId))
}

// After an error the text of the run before goes, until the graph has run again.
function end(succeeded) {
  const other = isOther()
  running = null
  if (other) return
  for (const [id, kept] of Object.entries(texts())) {
    const node = find(id)
    kept.old = !succeeded && !reported.has(id)
    if (!node) continue
    if (kept.old) hide(node)
    else show(id, kept.text)
  }
  sessionStorage.setItem(STORE, JSON.stringify(graphs))
}

function restore() {
  for (const [id, kept] of Object.entries(texts())) {
    const node = find(id)
    if (node && !kept.old && kept.state === state(node)) show(id, kept.text)
  }
}

app.registerExtension({
  name: "PeRFlow.NodeTexts",

  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.python_module === PACK) ours.add(nodeData.name)
  },

  setup() {
    api.addEventListener("progress_text", keep)
    api.addEventListener("execution_start", () => ([reported, running] = [new Set(), root().id]))
    // The page's own answer to the end of a run comes first.
    for (const kind of ENDS) api.addEventListener(kind, () => setTimeout(() => end(kind === "execution_success")))
  },

  afterConfigureGraph() {
    setTimeout(restore)
  },
})
