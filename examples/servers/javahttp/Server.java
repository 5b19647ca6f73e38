import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

/** com.sun.net.httpserver with a stop hook. */
public class Server {
    public static void main(String[] arguments) throws Exception {
        byte[] hello = "hello\n".getBytes();
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 0);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, hello.length);
            exchange.getResponseBody().write(hello);
            exchange.close();
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(1)));
        server.start();
    }
}
