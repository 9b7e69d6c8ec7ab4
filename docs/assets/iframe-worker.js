// The search runs in a worker, and a browser starts none for a page that was opened as a file. Here a hidden frame does its
// work instead; where pages come from a server nothing is changed.
if (location.protocol === "file:") {
  window.Worker = class FrameWorker extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.ready = new Promise((resolve) => frame.addEventListener("load", () => resolve(this.prepared(frame.contentWindow)), { once: true }));
      const script = document.createElement("script");
      script.src = new URL(address, document.baseURI).href;
      frame.srcdoc = script.outerHTML;
      document.body.append(frame);
      this.frame = frame;
    }

    // What the script of a worker expects to be there.
    prepared(inside) {
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = (...addresses) =>
        Promise.all(
          addresses.map(
            (address) =>
              new Promise((resolve, reject) => {
                const script = inside.document.createElement("script");
                script.src = address;
                script.addEventListener("load", resolve);
                script.addEventListener("error", reject);
                inside.document.body.append(script);
              }),
          ),
        );
      return inside;
    }

    postMessage(data) {
      this.ready.then((inside) => inside.dispatchEvent(new inside.MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
