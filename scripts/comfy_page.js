// What the tests and the screenshots ask of ComfyUI's web page, from inside it.
window.comfyPage = {
  // From here on the page has the server's settings with these over them; what it wants to change is not stored.
  settings(ours) {
    const original = window.fetch
    window.fetch = async (resource, options) => {
      const { pathname } = new URL(resource.url ?? resource, location.href)
      if (!pathname.endsWith("/settings")) return original(resource, options)
      if ((options?.method ?? resource.method ?? "GET") !== "GET") return new Response(null, { status: 200 })
      const answer = await original(resource, options)
      return Response.json({ ...await answer.json(), ...ours })
    }
  },

  // The graph is there and the nodes' types are known.
  ready: () => !!window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 50,

  // The nodes as they stand on the page, in the graph's own units.
  nodes() {
    return app.graph._nodes.map(node => ({
      id: Number(node.id), // newer versions keep it as text
      type: node.type,
      title: node.title,
      missing: !(node.type in LiteGraph.registered_node_types),
      box: this.box(node),
      elements: !!document.querySelector(`[data-node-id="${node.id}"]`)?.offsetWidth, // and not drawn on the canvas
      widgets: (node.widgets ?? []).map(widget => this.widget(widget, node)),
      pictures: [...(node.imgs ?? []), ...document.querySelectorAll(`[data-node-id="${node.id}"] img`)]
        .filter(picture => picture.naturalWidth > 1).length,
    }))
  },

  // What nodes say below their widgets.
  texts: () => Object.fromEntries(app.graph._nodes.flatMap(node => (node.widgets ?? [])
    .filter(widget => widget.type === "progressText").map(widget => [node.id, widget.value]))),

  // Link the first output of the node of one type with the first input of that of the other.
  link(from, to) {
    const [source, target] = [from, to].map(type => app.graph._nodes.find(node => node.type === type))
    source.connect(0, target, 0)
  },

  widget(widget, node) {
    let options = widget.type === "combo" ? widget.options?.values : null
    if (typeof options === "function") options = options(widget, node)
    const saved = widget.serialize !== false
    return { name: widget.name, value: widget.value, saved, options: options ? [...options] : null }
  },

  // [left, top, right, bottom] with the title: as drawn on the canvas, or as the elements of Nodes 2.0 lie.
  box(node) {
    const element = document.querySelector(`[data-node-id="${node.id}"]`)
    if (!element?.offsetWidth) {
      node.updateArea(app.canvas.ctx)
      const [x, y, width, height] = node.boundingRect
      return [x, y, x + width, y + height]
    }
    const parts = [...element.children].filter(part => getComputedStyle(part).position !== "absolute") // those: handles
    const rects = [element, ...parts].map(part => part.getBoundingClientRect())
    const canvas = app.canvas.canvas.getBoundingClientRect()
    const { scale, offset } = app.canvas.ds
    const x = screen => (screen - canvas.left) / scale - offset[0]
    const y = screen => (screen - canvas.top) / scale - offset[1]
    return [
      x(Math.min(...rects.map(r => r.left))), y(Math.min(...rects.map(r => r.top))),
      x(Math.max(...rects.map(r => r.right))), y(Math.max(...rects.map(r => r.bottom))),
    ]
  },

  // The titles of nodes of the canvas whose text is longer than they are; in Nodes 2.0 such nodes grow.
  cutTexts: () => app.graph._nodes.filter(node => (node.widgets ?? []).some(({ element }) => element
      && [element, ...element.querySelectorAll(".tiptap")].some(text => text.tagName !== "TEXTAREA"
        && text.scrollHeight > text.clientHeight + 1)))
    .map(node => node.title),

  groups: () => app.graph._groups.map(({ title, pos, size }) => (
    { title, box: [pos[0], pos[1], pos[0] + size[0], pos[1] + size[1]] }
  )),

  // Show these boxes as large as the part of the canvas that nothing covers allows.
  fit(boxes, margin, largest) {
    const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]))
    const width = Math.max(...boxes.map(b => b[2])) - left, height = Math.max(...boxes.map(b => b[3])) - top
    const canvas = app.canvas.canvas.getBoundingClientRect()
    const free = { width: canvas.width - margin.left - margin.right, height: canvas.height - margin.top - margin.bottom }
    const scale = Math.min(free.width / width, free.height / height, largest)
    const { ds } = app.canvas
    ds.scale = scale
    ds.offset[0] = (margin.left + (free.width - width * scale) / 2) / scale - left
    ds.offset[1] = (margin.top + (free.height - height * scale) / 2) / scale - top
    app.canvas.setDirty(true, true)
    return [left, top, width, height].map((value, i) => i < 2
      ? (value + ds.offset[i]) * scale + [canvas.left, canvas.top][i] : value * scale)
  },

  // Resolves when layout and view have been the same for some frames, or to false when it has not been so for some seconds.
  async still(frames, seconds = 20) {
    let last = "", same = 0
    const end = performance.now() + 1000 * seconds
    while (same < frames) {
      if (performance.now() > end) return false
      await new Promise(next => { requestAnimationFrame(next); setTimeout(next, 1000) }) // a hidden page has no frames
      const boxes = app.graph._nodes.map(node => [node.size, this.box(node)])
      const now = JSON.stringify([boxes, app.canvas.ds.scale, [...app.canvas.ds.offset], document.body.offsetWidth])
      same = now === last ? same + 1 : 0
      last = now
    }
    return true
  },
}
